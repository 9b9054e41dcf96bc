"""The same change to several edits: what was picked in the list is looked at again, and then changed.

It is a call of the API for each edit, on the version that was listed, so where others must agree it is a
proposal each. Nothing is undone where one of them is refused: the page says what became of each.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Controller, Response, get, post

from serac_gateway.console.edit_changes import can_expedite
from serac_gateway.console.edit_fields import field_value, form_fields_of_edit
from serac_gateway.console.edits import BULK_ACTS
from serac_gateway.console.paths import page_path
from serac_gateway.console.planes import RefusedError, together
from serac_gateway.console.visits import Visit, Visiting
from serac_gateway.domain.edits import is_edit_id

_PICK = "pick."
"""Before the id of an edit in the name of a field; its value is the version that was listed."""
_TYPED = ("review_by", "audience")
"""Acts that need a value, which is a field of the edit."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one of the picked edits."""

    edit_id: str
    prompt: str
    done: bool = False
    proposal_id: str | None = None
    problem: str | None = None
    """Why nothing was done, in English."""


class BulkPages(Controller):
    """/console/n/{namespace}/bulk."""

    path = "/n/{namespace:str}/bulk"

    @get()
    async def back(self, visit: Visiting) -> Response[None]:
        """Without a form there is nothing picked: to the list."""
        return visit.redirect(page_path(visit.namespace, "edits"))

    @post(status_code=200)
    async def act(self, visit: Visiting) -> Response[Any]:
        """List what would be changed and ask for the rest; once that is confirmed, do it."""
        act = visit.fields.get("act", "")
        picked = {
            name.removeprefix(_PICK): version
            for name, version in visit.fields.items()
            if name.startswith(_PICK) and is_edit_id(name.removeprefix(_PICK))
        }
        if act not in BULK_ACTS:
            return visit.page("missing.html", status=404)
        replies = await together(*(visit.client.control("GET", f"/edits/{edit_id}") for edit_id in picked))
        edits = [reply.json for reply in replies if not isinstance(reply, RefusedError)]
        moved = [edit for edit in edits if str(edit["version"]) != picked[edit["id"]]]
        edits = [edit for edit in edits if edit not in moved]
        confirmed = bool(edits) and visit.fields.get("sure") == "yes"
        outcomes = await _outcomes(visit, act, edits) if confirmed else None
        return visit.page(
            "bulk.html",
            act=act,
            edits=edits,
            moved=moved,
            missing=len(picked) - len(edits) - len(moved),
            outcomes=outcomes,
            typed=act in _TYPED,
            texts={name: visit.fields.get(name, "") for name in ("value", "reason", "ticket")},
            needed=visit.client.planes.config.governance.approvals_of(visit.namespace),
            can_expedite=can_expedite(visit),
        )


async def _outcomes(visit: Visit, act: str, edits: list[dict[str, Any]]) -> list[Outcome]:
    why = {name: text for name in ("reason", "ticket") if (text := visit.fields.get(name, "").strip())}
    headers = {"x-serac-expedite": "true"} if visit.fields.get("expedite") == "yes" else {}
    change: dict[str, object] = {"state": act}
    if act in _TYPED:
        field = next(field for field in form_fields_of_edit() if field.name == act)
        change = {act: field_value(field, visit.fields.get("value", ""))}
    outcomes = []
    for edit in edits:  # one after the other: a gateway encodes few texts at a time
        if_match = {"if-match": f'"{edit["version"]}"'}
        try:
            if act == "retire":
                reply = await visit.client.control(
                    "DELETE", f"/edits/{edit['id']}", query=why, headers=headers | if_match
                )
            else:
                reply = await visit.client.control(
                    "PATCH", f"/edits/{edit['id']}", body=change | why, headers=headers | if_match
                )
            proposal_id = reply.json["id"] if reply.status == 202 else None
            outcomes.append(_outcome(edit, done=reply.status != 202, proposal_id=proposal_id))
        except RefusedError as refusal:
            outcomes.append(_outcome(edit, problem=refusal.detail))
    return outcomes


def _outcome(
    edit: dict[str, Any], *, done: bool = False, proposal_id: str | None = None, problem: str | None = None
) -> Outcome:
    return Outcome(
        edit_id=edit["id"], prompt=edit["prompt"], done=done, proposal_id=proposal_id, problem=problem
    )
