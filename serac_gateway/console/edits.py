"""The pages about stored edits: the list, and one edit with its history."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath

from serac_gateway.console.diffs import as_text
from serac_gateway.console.edit_fields import content_of
from serac_gateway.console.paths import page_path
from serac_gateway.console.planes import RefusedError
from serac_gateway.console.sessions import Notice
from serac_gateway.console.timelines import timeline
from serac_gateway.console.visits import Visit, Visiting
from serac_gateway.domain.edits import EditKind, EditState

PAGE = 50
FILTERS = ("q", "mode", "state", "kind", "author", "audience", "due")

DUE_WITHIN = ("0", "30", "90")
"""Days within which a review may be due, as the list offers them."""

BULK_ACTS = ("review_by", "audience", "shadow", "live", "retire")
"""What can be done to several edits at a time."""


class ChangedField(msgspec.Struct, frozen=True, kw_only=True):
    """A field that a version changed."""

    name: str
    before: object
    after: object


class VersionStep(msgspec.Struct, frozen=True, kw_only=True):
    """A version, and what it changed."""

    record: dict[str, Any]
    changed: tuple[ChangedField, ...]


class EditPages(Controller):
    """/console/n/{namespace}/edits, to read."""

    path = "/n/{namespace:str}/edits"

    @get()
    async def listing(self, visit: Visiting) -> Response[str]:
        """The edits that the filters admit; with JavaScript the list alone, while somebody types."""
        given = given_filters(visit)
        page = await listed_page(visit, given, limit=PAGE)
        filters = {name: given[name] for name in FILTERS}
        following = None
        if page["next_cursor"] is not None:
            following = page_path(visit.namespace, "edits", **filters, cursor=page["next_cursor"])
        return visit.page(
            "_edit_rows.html" if visit.is_fragment else "edits.html",
            edits=page["edits"],
            similarities=page.get("similarities"),
            damaged=page.get("damaged") or [],
            following=following,
            is_short=len(page["edits"]) < PAGE,
            given=given,
            filters=filters,
            is_filtered=any(given[name] for name in FILTERS if name != "mode"),
            due_within=DUE_WITHIN,
            acts=BULK_ACTS,
            states=[state.value for state in EditState],
            kinds=[kind.value for kind in EditKind],
        )

    @get("/{edit_id:str}")
    async def detail(self, visit: Visiting, edit_id: FromPath[str]) -> Response[str]:
        """One edit: what it says, its effect, its history, and what is proposed about it."""
        return await _detail(visit, edit_id)

    @post("/{edit_id:str}", status_code=200)
    async def verify(self, visit: Visiting, edit_id: FromPath[str]) -> Response[str]:
        """Ask the edit's own questions, and show the answers on its page."""
        reply = await visit.client.control("POST", f"/edits/{edit_id}:verify")
        return await _detail(visit, edit_id, verified=reply.json)


def given_filters(visit: Visit) -> dict[str, str]:
    """What the page's query says of `FILTERS` and of the place in the list; empty where it does not."""
    return {name: visit.request.query_params.get(name, "") for name in (*FILTERS, "cursor")}


async def listed_page(visit: Visit, given: Mapping[str, str], *, limit: int) -> dict[str, Any]:
    """A page of the API's list of edits, as `given_filters` want it. Raises RefusedError."""
    query = {name: value.strip() or None for name, value in given.items()}
    if given["mode"] == "meaning" and given["q"].strip():
        query |= dict.fromkeys(("state", "kind", "author", "audience", "due", "cursor"))
    else:
        query["mode"] = None
    query["within_days"] = query.pop("due")
    path = "/edits" if query["within_days"] is None else "/edits:due"
    reply = await visit.client.control("GET", path, query={**query, "limit": str(limit)})
    page: dict[str, Any] = reply.json
    return page


async def _detail(visit: Visiting, edit_id: str, *, verified: dict[str, Any] | None = None) -> Response[str]:
    edit = (await visit.client.control("GET", f"/edits/{edit_id}")).json
    versions = (await visit.client.control("GET", f"/edits/{edit_id}/versions")).json["versions"]
    proposals = await open_proposals(visit, edit_id)
    return visit.page(
        "edit.html",
        edit=edit,
        content=content_of(edit),
        steps=history(versions),
        line=timeline(versions, datetime.now(UTC)),
        verified=verified,
        proposals=proposals,
    )


async def open_proposals(visit: Visiting, edit_id: str) -> list[dict[str, Any]]:
    """The open proposals that concern an edit."""
    query: dict[str, str | None] = {"state": "open", "edit_id": edit_id, "limit": "1000"}
    return list((await visit.client.control("GET", "/proposals", query=query)).json["proposals"])


def history(versions: list[dict[str, Any]]) -> list[VersionStep]:
    """Each version with the fields that it changed, the newest first."""
    steps = [
        VersionStep(record=after, changed=changed_fields(before, after))
        for before, after in itertools.pairwise([{}, *versions])
    ]
    return steps[::-1]


def changed_fields(before: dict[str, Any], after: dict[str, Any]) -> tuple[ChangedField, ...]:
    """The fields of content, and the state, in which two versions differ; all that hold anything if first."""
    old, new = content_of(before), content_of(after)
    old["state"], new["state"] = before.get("state"), after.get("state")
    names = dict.fromkeys([*new, *old])
    return tuple(
        ChangedField(name=name, before=old.get(name), after=new.get(name))
        for name in names
        if as_text(old.get(name)) != as_text(new.get(name))
    )


def effect_notice(key: str, edit: dict[str, Any]) -> Notice:
    """What a page says after a write: that it is done, and what the API warns of."""
    conflicts = edit.get("conflicts") or []
    details = [warning["detail"] for warning in edit.get("warnings") or []]
    details += [f"{other['edit_id']}: {other['prompt']} → {other['target_new']}" for other in conflicts]
    return Notice(key=f"{key}_with_details" if details else key, details=tuple(details))


def error_of(error: RefusedError) -> dict[str, str | None]:
    """What a form says about a refusal: its text, and the name of the field."""
    return {"detail": error.detail, "field": (error.field or "").partition("[")[0] or None}
