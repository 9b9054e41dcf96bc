"""Proposals: the inbox, and one proposal with what it would change, to be agreed to, refused or withdrawn."""

from __future__ import annotations

import secrets
from typing import Any

from litestar import Controller, Response, get, post
from litestar.params import FromPath

from serac_gateway.console.edits import error_of
from serac_gateway.console.paths import page_path
from serac_gateway.console.planes import RefusedError
from serac_gateway.console.sessions import Notice
from serac_gateway.console.visits import Visit, Visiting
from serac_gateway.stores.proposals import ProposalState

PAGE = 50
_VERBS = {"approve": "proposals.approved", "reject": "proposals.rejected", "withdraw": "proposals.withdrawn"}
"""What can be said, and the notice that it was."""


class ProposalPages(Controller):
    """/console/n/{namespace}/proposals."""

    path = "/n/{namespace:str}/proposals"

    @get()
    async def inbox(self, visit: Visiting) -> Response[str]:
        """What waits for agreement, or what was decided."""
        state = visit.request.query_params.get("state", ProposalState.OPEN.value)
        cursor = visit.request.query_params.get("cursor")
        query: dict[str, str | None] = {
            "state": None if state == "all" else state,
            "cursor": cursor,
            "limit": str(PAGE),
        }
        page = (await visit.client.control("GET", "/proposals", query=query)).json
        following = None
        if page["next_cursor"] is not None:
            following = page_path(visit.namespace, "proposals", state=state, cursor=page["next_cursor"])
        return visit.page(
            "proposals.html",
            proposals=page["proposals"],
            state=state,
            states=[each.value for each in ProposalState],
            following=following,
            demands=visit.client.planes.config.governance.approvals_of(visit.namespace),
        )

    @get("/{proposal_id:str}")
    async def detail(self, visit: Visiting, proposal_id: FromPath[str]) -> Response[str]:
        """What it would change, what was foreseen, and who has said what."""
        return await _detail(visit, proposal_id, reason=(visit.typed or {}).get("reason", ""))

    @post("/{proposal_id:str}", status_code=200)
    async def judge(self, visit: Visiting, proposal_id: FromPath[str]) -> Response[Any]:
        """Agree, refuse or withdraw, with a reason; only what was looked at is decided on."""
        verb, reason = visit.fields.get("verb", ""), visit.fields.get("reason", "")
        if verb not in _VERBS:
            return await _detail(visit, proposal_id, reason=reason, status=400)
        headers = {"if-match": f'"{visit.fields.get("revision", "")}"'}
        if verb != "withdraw":
            headers["idempotency-key"] = visit.fields.get("token") or secrets.token_hex(16)
        try:
            await visit.client.control(
                "POST", f"/proposals/{proposal_id}:{verb}", body={"reason": reason}, headers=headers
            )
        except RefusedError as refusal:
            return await _detail(
                visit, proposal_id, reason=reason, status=refusal.status, error=error_of(refusal)
            )
        return visit.redirect(page_path(visit.namespace, "proposals", proposal_id), Notice(key=_VERBS[verb]))


async def _detail(
    visit: Visit,
    proposal_id: str,
    *,
    reason: str,
    status: int = 200,
    error: dict[str, str | None] | None = None,
) -> Response[str]:
    reply = await visit.client.control("GET", f"/proposals/{proposal_id}")
    proposal = reply.json
    is_own = proposal["author"] == visit.principal.author
    return visit.page(
        "proposal.html",
        status=status,
        proposal=proposal,
        revision=reply.headers["etag"].strip('"'),
        is_own=is_own,
        may_judge=visit.may("approve") and not is_own,
        may_withdraw=is_own or visit.may("admin"),
        token=secrets.token_hex(16),
        reason=reason,
        error=error,
    )
