"""Proposals over HTTP: list, read, approve, reject, withdraw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
from litestar import Controller, Response, get, post
from litestar.datastructures import ResponseHeader
from litestar.openapi.spec import Example
from litestar.params import BodyKwarg, HeaderParameter, PathParameter, QueryParameter

from serac_gateway.auth.principals import Role
from serac_gateway.control_plane.http.dependencies import Context
from serac_gateway.control_plane.http.etags import entity_tags
from serac_gateway.control_plane.http.guards import NEEDED_ROLE, Sender
from serac_gateway.control_plane.http.parameters import (
    IdempotencyKey,
    Namespace,
    PageLimit,
    checked_idempotency_key,
    problems,
)
from serac_gateway.control_plane.http.proposal_replies import (
    ProposalDetails,
    ProposalReply,
    ProposalsReply,
    proposal_details,
    proposal_reply,
    proposal_response,
)
from serac_gateway.control_plane.http.schemas import DEFAULT_PAGE
from serac_gateway.control_plane.http.wait import APPLIED, Wait
from serac_gateway.control_plane.opinions import Opinion
from serac_gateway.domain.edits import check_edit_id
from serac_gateway.domain.provenance import MAX_NOTE_CHARS, checked_note
from serac_gateway.errors import PreconditionFailedError
from serac_gateway.stores.proposals import Proposal, ProposalState

ProposalId = Annotated[
    str,
    PathParameter(
        description="`pr_` and 22 hexadecimal digits", schema_extra={"pattern": "^pr_[0-9a-f]{22}$"}
    ),
]
_REVISION = ResponseHeader(
    name="etag", description='The revision in quotes: `"2"`', documentation_only=True, required=True
)
_IfMatch = Annotated[
    str | None,
    HeaderParameter(name="if-match", description="The ETag of the revision that was read"),
]


class Judgement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody says of a proposal."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NOTE_CHARS)]
    """Why; it stays."""


_YES = Example(summary="Agreed", value={"reason": "Checked against the council's minutes"})
_NO = Example(summary="Refused", value={"reason": "The minutes name somebody else"})
_BACK = Example(summary="Withdrawn", value={"reason": "I mixed up two towns"})


class ProposalsController(Controller):
    """/serac/v1/proposals. Every reply with one proposal carries its revision as ETag."""

    tags = ("proposals",)

    @get(
        "/proposals",
        summary="List proposals",
        description="In the order in which they were opened. A page may be short, or empty, and yet not be"
        " the last: follow `next_cursor` until it is null.",
        responses=problems(400, 503),
    )
    async def page(
        self,
        namespace: Namespace,
        context: Context,
        cursor: Annotated[str | None, QueryParameter(description="`next_cursor` of the page before")] = None,
        limit: PageLimit = DEFAULT_PAGE,
        proposal_state: Annotated[
            ProposalState | None, QueryParameter(name="state", description="Only proposals in this state")
        ] = None,
        edit_id: Annotated[
            str | None, QueryParameter(description="Only proposals that concern this edit")
        ] = None,
    ) -> ProposalsReply:
        """One page of proposals."""
        if edit_id is not None:
            check_edit_id(edit_id)
        page = await context.proposals.page(namespace, cursor=cursor, limit=limit, state=proposal_state)
        return ProposalsReply(
            proposals=[
                proposal_reply(context, proposal)
                for proposal in page.proposals
                if edit_id is None or edit_id in proposal.edit_ids
            ],
            next_cursor=page.next_cursor,
        )

    @get(
        "/proposals/{proposal_id:str}",
        summary="Read a proposal",
        response_headers=[_REVISION],
        responses=problems(400, 404, 503),
    )
    async def read(
        self, proposal_id: ProposalId, namespace: Namespace, context: Context
    ) -> Response[ProposalDetails]:
        """A proposal, field by field against the current versions of its edits."""
        proposal = await context.proposals.read(namespace, proposal_id)
        changes, current = await context.proposals.changes(proposal)
        details = proposal_details(context, proposal, changes, current)
        return Response(details, headers={"etag": _entity_tag(proposal)})

    @post(
        "/proposals/{proposal_id:str}/:approve",
        status_code=200,
        summary="Agree to a proposal",
        description="The last agreement that is needed commits the changes, and closes the proposal, in one"
        " step; they are in force in this process before the reply. The author's agreement is refused, under"
        " whichever key; the same agreement sent again changes nothing. A stale proposal is 409.",
        response_headers=[_REVISION, APPLIED],
        responses=problems(400, 404, 409, 410, 412, 413, 422, 503),
        opt={NEEDED_ROLE: Role.APPROVE},
    )
    async def approve(
        self,
        proposal_id: ProposalId,
        data: Annotated[Judgement, BodyKwarg(examples=[_YES])],
        namespace: Namespace,
        context: Context,
        principal: Sender,
        waiting: Wait,
        if_match: _IfMatch = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[ProposalReply]:
        """Agree to all of its changes."""
        decided = await context.proposals.decide(
            namespace,
            proposal_id,
            principal,
            _opinion(data, idempotency_key, accepts=True),
            check_match=_matching(if_match),
        )
        return await waiting.replied(proposal_response(context, decided))

    @post(
        "/proposals/{proposal_id:str}/:reject",
        status_code=200,
        summary="Refuse a proposal",
        description="One refusal closes it; nothing is changed. The author withdraws it instead.",
        response_headers=[_REVISION],
        responses=problems(400, 404, 409, 412, 413, 422, 503),
        opt={NEEDED_ROLE: Role.APPROVE},
    )
    async def reject(
        self,
        proposal_id: ProposalId,
        data: Annotated[Judgement, BodyKwarg(examples=[_NO])],
        namespace: Namespace,
        context: Context,
        principal: Sender,
        if_match: _IfMatch = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[ProposalReply]:
        """Refuse all of its changes."""
        decided = await context.proposals.decide(
            namespace,
            proposal_id,
            principal,
            _opinion(data, idempotency_key, accepts=False),
            check_match=_matching(if_match),
        )
        return proposal_response(context, decided)

    @post(
        "/proposals/{proposal_id:str}/:withdraw",
        status_code=200,
        summary="Withdraw a proposal",
        description="By its author, under any of their keys, or by an admin; nothing is changed. Withdrawn"
        " again, it is answered as it is.",
        response_headers=[_REVISION],
        responses=problems(400, 404, 409, 412, 413, 503),
    )
    async def withdraw(
        self,
        proposal_id: ProposalId,
        data: Annotated[Judgement, BodyKwarg(examples=[_BACK])],
        namespace: Namespace,
        context: Context,
        principal: Sender,
        if_match: _IfMatch = None,
    ) -> Response[ProposalReply]:
        """Close one's own proposal."""
        checked_note("reason", data.reason)
        withdrawn = await context.proposals.withdraw(
            namespace, proposal_id, principal, data.reason, check_match=_matching(if_match)
        )
        return proposal_response(context, withdrawn)


def _opinion(data: Judgement, idempotency_key: str | None, *, accepts: bool) -> Opinion:
    checked_note("reason", data.reason)
    return Opinion(
        accepts=accepts, reason=data.reason, idempotency_key=checked_idempotency_key(idempotency_key)
    )


def _entity_tag(proposal: Proposal) -> str:
    return f'"{proposal.revision}"'


def _matching(if_match: str | None) -> Callable[[Proposal], None]:
    """What raises where `if_match` names another revision than the proposal's."""
    tags = None if if_match is None else entity_tags(if_match)

    def check(proposal: Proposal) -> None:
        if tags is not None and _entity_tag(proposal) not in tags:
            raise PreconditionFailedError(
                f"proposal {proposal.id!r} is at revision {proposal.revision}, and If-Match is"
                f" {(if_match or '')[:80]!r}; read it again",
                field="if-match",
                details={"value": (if_match or "")[:80], "current": _entity_tag(proposal)},
            )

    return check
