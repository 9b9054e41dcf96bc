"""The page on which a canary's arms are compared, to be promoted or stopped from there."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Response, get, post
from litestar.params import FromPath

from serac_gateway.console.edit_changes import after_write, can_expedite, sent_author, sent_expedite
from serac_gateway.console.edits import error_of
from serac_gateway.console.planes import RefusedError
from serac_gateway.console.visits import Visit, Visiting

_VERBS = {"promote": ("live", "compare.promoted"), "stop": ("shadow", "compare.stopped")}
"""What can be done: the state of the edit after it, and the notice that it was."""


class ComparisonPages(Controller):
    """/console/n/{namespace}/edits/{id}/compare."""

    path = "/n/{namespace:str}/edits/{edit_id:str}/compare"

    @get()
    async def compared(self, visit: Visiting, edit_id: FromPath[str]) -> Response[str]:
        """Both arms with their intervals."""
        return await _page(visit, edit_id, reason=(visit.typed or {}).get("reason", ""))

    @post(status_code=200)
    async def act(self, visit: Visiting, edit_id: FromPath[str]) -> Response[Any]:
        """Make the version that was looked at live, or a shadow; a proposal where others must agree."""
        verb, reason = visit.fields.get("verb", ""), visit.fields.get("reason", "")
        if verb not in _VERBS:
            return await _page(visit, edit_id, reason=reason, status=400)
        state, notice = _VERBS[verb]
        body: dict[str, object] = {"state": state, **sent_author(visit)}
        if reason.strip():
            body["reason"] = reason.strip()
        headers = {"if-match": f'"{visit.fields.get("version", "")}"', **sent_expedite(visit)}
        try:
            reply = await visit.client.control("PATCH", f"/edits/{edit_id}", body=body, headers=headers)
        except RefusedError as refusal:
            return await _page(visit, edit_id, reason=reason, status=refusal.status, error=error_of(refusal))
        return after_write(visit, reply, notice)


async def _page(
    visit: Visit,
    edit_id: str,
    *,
    reason: str,
    status: int = 200,
    error: dict[str, str | None] | None = None,
) -> Response[str]:
    edit = (await visit.client.control("GET", f"/edits/{edit_id}")).json
    compared = (await visit.client.control("GET", f"/edits/{edit_id}:compare")).json
    return visit.page(
        "compare.html",
        status=status,
        edit=edit,
        compared=compared,
        arms=[("treatment", compared["treatment"]), ("control", compared["control"])],
        reason=reason,
        error=error,
        can_expedite=can_expedite(visit),
    )
