"""The pages that change edits: add, change, retire, restore, roll back. Each is a form at its own path.

A change names the version that it builds on. Where somebody else was quicker, the page is rendered again with
both changes merged, and nothing is written until it is sent again.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath

from serac_gateway.console.edit_fields import (
    FIRST,
    OF_THIS_CHANGE,
    draft_body,
    form_fields_of_edit,
    patch_body,
    record_texts,
    typed_texts,
)
from serac_gateway.console.edits import changed_fields, effect_notice, error_of
from serac_gateway.console.merges import Merge, merged
from serac_gateway.console.paths import page_path
from serac_gateway.console.planes import RefusedError, Reply
from serac_gateway.console.sessions import Notice
from serac_gateway.console.visits import Visit, Visiting

_PREFILLED = ("prompt", "target_new", "target_true", "subject", "reason")
"""What a link to the form for a new edit may bring along."""
_ACTS = ("retire", "restore", "rollback")


class Previewed(msgspec.Struct, frozen=True, kw_only=True):
    """What a preview gave; nothing while question or answer are missing."""

    reply: dict[str, Any] | None = None
    problem: str | None = None
    """Why there is none, in English."""


class EditChangePages(Controller):
    """/console/n/{namespace}/new, …/preview and …/edits/{id}/…, to write."""

    path = "/n/{namespace:str}"

    @get("/new")
    async def new(self, visit: Visiting) -> Response[str]:
        """The form for a new edit; a link may bring texts along."""
        linked = {name: visit.request.query_params.get(name, "") for name in _PREFILLED}
        typed = visit.typed
        texts = record_texts({}) | {name: text for name, text in linked.items() if text}
        return _form(visit, typed_texts(typed) if typed else texts, restored=typed is not None)

    @post("/new", status_code=200)
    async def add(self, visit: Visiting) -> Response[Any]:
        """Add the edit; or with the button for it, render its preview beside the form."""
        texts = typed_texts(visit.fields)
        if visit.fields.get("act") == "preview":
            return _form(visit, texts, previewed=await _preview(visit, texts))
        try:
            reply = await visit.client.control(
                "POST",
                "/edits",
                body=draft_body(texts) | sent_author(visit),
                headers={"idempotency-key": visit.fields.get("token") or secrets.token_hex(16)}
                | sent_expedite(visit),
            )
        except RefusedError as refusal:
            return _form(visit, texts, status=refusal.status, error=error_of(refusal))
        return after_write(visit, reply, "edits.added")

    @post("/preview", status_code=200)
    async def preview(self, visit: Visiting) -> Response[str]:
        """A preview for a form that is being filled in: a part of its page."""
        texts = typed_texts(visit.fields)
        previewed = await _preview(visit, texts, edit_id=visit.fields.get("edit_id"))
        return visit.page("_preview.html", preview=previewed.reply, preview_error=previewed.problem)

    @get("/edits/{edit_id:str}/change")
    async def change_form(self, visit: Visiting, edit_id: FromPath[str]) -> Response[str]:
        """The form with the edit as it is, or with what was typed before the session ended."""
        edit = (await visit.client.control("GET", f"/edits/{edit_id}")).json
        typed = visit.typed
        if typed is not None and typed.get("version", "").isdigit():
            base = {**edit, "version": int(typed["version"])}
            return _form(visit, typed_texts(typed), edit=base, restored=True)
        return _form(visit, record_texts(edit) | dict.fromkeys(OF_THIS_CHANGE, ""), edit=edit)

    @post("/edits/{edit_id:str}/change", status_code=200)
    async def change(self, visit: Visiting, edit_id: FromPath[str]) -> Response[Any]:
        """Store the fields that were changed, unless somebody else changed the edit meanwhile."""
        versions = (await visit.client.control("GET", f"/edits/{edit_id}/versions")).json["versions"]
        base = _version(versions, visit.fields.get("version", ""))
        mine, before = typed_texts(visit.fields), record_texts(base)
        if visit.fields.get("act") == "preview":
            return _form(visit, mine, edit=base, previewed=await _preview(visit, mine, edit_id=edit_id))
        try:
            reply = await visit.client.control(
                "PATCH",
                f"/edits/{edit_id}",
                body=patch_body(before, mine) | sent_author(visit),
                headers={"if-match": f'"{base["version"]}"'} | sent_expedite(visit),
            )
        except RefusedError as refusal:
            if refusal.status != 412:
                return _form(visit, mine, edit=base, status=refusal.status, error=error_of(refusal))
            versions = (await visit.client.control("GET", f"/edits/{edit_id}/versions")).json["versions"]
            merge = merged(before, mine, record_texts(versions[-1]))
            return _form(visit, merge.texts, edit=versions[-1], merge=merge, status=412)
        return after_write(visit, reply, "edits.changed")

    @get("/edits/{edit_id:str}/{act:str}")
    async def act_form(self, visit: Visiting, edit_id: FromPath[str], act: FromPath[str]) -> Response[str]:
        """What would become of the edit, to be confirmed with a reason."""
        typed = visit.typed or {}
        version = typed.get("to", visit.request.query_params.get("to", ""))
        return await _confirm(visit, edit_id, act, to=version, typed=typed)

    @post("/edits/{edit_id:str}/{act:str}", status_code=200)
    async def do(self, visit: Visiting, edit_id: FromPath[str], act: FromPath[str]) -> Response[Any]:
        """Retire the edit, restore it, or bring back an older version."""
        to = visit.fields.get("to", "")
        headers = {"if-match": f'"{visit.fields.get("version", "")}"'} | sent_expedite(visit)
        why = {name: visit.fields.get(name, "").strip() or None for name in ("reason", "ticket")}
        try:
            if act == "retire":
                reply = await visit.client.control("DELETE", f"/edits/{edit_id}", query=why, headers=headers)
            elif act == "restore":
                reply = await visit.client.control(
                    "POST", f"/edits/{edit_id}:restore", body=why, headers=headers
                )
            else:
                body: dict[str, object] = {**why, "version": int(to) if to.isdigit() else 0}
                reply = await visit.client.control(
                    "POST", f"/edits/{edit_id}:rollback", body=body, headers=headers
                )
        except RefusedError as refusal:
            return await _confirm(
                visit, edit_id, act, to=to, typed=visit.fields, status=refusal.status, error=error_of(refusal)
            )
        return after_write(visit, reply, f"edits.done_{act}")


async def _confirm(
    visit: Visit,
    edit_id: str,
    act: str,
    *,
    to: str,
    typed: Mapping[str, str],
    status: int = 200,
    error: dict[str, str | None] | None = None,
) -> Response[str]:
    versions = (await visit.client.control("GET", f"/edits/{edit_id}/versions")).json["versions"]
    current = versions[-1]
    if act not in _ACTS:
        return visit.page("missing.html", status=404)
    after = {
        "retire": {**current, "state": "retired"},
        "restore": {**current, "state": "live"},
        "rollback": _version(versions, to),
    }[act]
    return visit.page(
        "confirm.html",
        status=status,
        act=act,
        to=to,
        edit=current,
        changed=changed_fields(current, after),
        texts={name: typed.get(name, "") for name in ("reason", "ticket")},
        error=error,
        can_expedite=can_expedite(visit),
    )


def _form(
    visit: Visit,
    texts: Mapping[str, str],
    *,
    edit: dict[str, Any] | None = None,
    status: int = 200,
    error: dict[str, str | None] | None = None,
    merge: Merge | None = None,
    previewed: Previewed | None = None,
    restored: bool = False,
) -> Response[str]:
    """The form with `texts`; of an `edit` that is changed, or of a new one."""
    fields = form_fields_of_edit()
    empty = record_texts({})
    required = [field.value for field in visit.client.planes.config.governance.required_of(visit.namespace)]
    return visit.page(
        "edit_form.html",
        status=status,
        edit=edit,
        texts=texts,
        first=[field for field in fields if field.name in FIRST],
        later=[field for field in fields if field.name not in FIRST],
        is_more_open=any(
            texts[field.name] != empty[field.name] or field.name in required
            for field in fields
            if field.name not in FIRST
        ),
        token=visit.fields.get("token") or secrets.token_hex(16),
        needed=visit.client.planes.config.governance.approvals_of(visit.namespace),
        required_fields=required,
        can_expedite=can_expedite(visit),
        error=error,
        merge=merge,
        restored=restored,
        preview=None if previewed is None else previewed.reply,
        preview_error=None if previewed is None else previewed.problem,
    )


async def _preview(visit: Visit, texts: Mapping[str, str], *, edit_id: str | None = None) -> Previewed:
    if not texts["prompt"].strip() or not texts["target_new"].strip():
        return Previewed()
    draft = draft_body(texts) | ({"id": edit_id} if edit_id else {})
    try:
        reply = await visit.client.control("POST", "/edits:preview", body={"edit": draft})
    except RefusedError as refusal:
        return Previewed(problem=refusal.detail)
    return Previewed(reply=reply.json)


def after_write(visit: Visit, reply: Reply, key: str) -> Response[Any]:
    """The page that a write leads to: of its proposal, where others must agree, else of the edit."""
    if reply.status == 202:
        proposal = reply.json["id"]
        return visit.redirect(
            page_path(visit.namespace, "proposals", proposal), Notice(key="proposals.opened")
        )
    edit = reply.json
    return visit.redirect(page_path(visit.namespace, "edits", edit["id"]), effect_notice(key, edit))


def _version(versions: list[dict[str, Any]], number: str) -> dict[str, Any]:
    """The version of that number; the current one if there is none."""
    return next((version for version in versions if str(version["version"]) == number), versions[-1])


def sent_author(visit: Visit) -> dict[str, object]:
    """Without a key nobody knows who it is; the form asks."""
    author = visit.fields.get("author", "").strip()
    return {"author": author} if visit.principal.key_id is None and author else {}


def can_expedite(visit: Visit) -> bool:
    """Whether the form offers to write without the agreement of others."""
    return visit.may("admin") and visit.client.planes.config.governance.approvals_of(visit.namespace) > 0


def sent_expedite(visit: Visit) -> dict[str, str]:
    """The header for it, if the form wants it."""
    return {"x-serac-expedite": "true"} if visit.fields.get("expedite") == "yes" else {}
