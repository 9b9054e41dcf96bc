"""The JSON of proposals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Response

from serac_gateway.control_plane.http.dependencies import ControlPlaneContext
from serac_gateway.control_plane.opinions import staleness
from serac_gateway.domain.edits import CONTENT_FIELDS, AwareDatetime, Edit
from serac_gateway.stores.proposals import ForeseenEffect, Proposal, ProposalState, ProposedChange
from serac_gateway.stores.records import Action


class VerdictReply(msgspec.Struct, frozen=True, kw_only=True):
    """What an approver says."""

    approver: str
    accepts: bool
    reason: str
    at: AwareDatetime


class FieldDiff(msgspec.Struct, frozen=True, kw_only=True):
    """A field that would change."""

    field: str
    before: Any
    """null also where there is no edit yet."""
    after: Any


class ChangeReply(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of one edit."""

    action: Action
    edit_id: str
    base_version: int
    """The version that it was made against; 0: the edit is new."""
    current_version: int
    """0: there is no such edit."""
    fields: list[FieldDiff]
    """Compared with the current version."""
    reason: str | None


class ProposalReply(msgspec.Struct, frozen=True, kw_only=True):
    """Changes that wait for the agreement of others, or did."""

    id: str
    url: str
    """Its path."""
    state: ProposalState
    action: str
    """The call: add, update, retire, retire_versions, restore, rollback, rollback_all or import."""
    edit_ids: list[str]
    author: str
    reason: str | None
    created_at: AwareDatetime
    expires_at: AwareDatetime
    needed: int
    """How many others must agree."""
    agreed: int
    verdicts: list[VerdictReply]
    effect: ForeseenEffect | None
    """What a preview showed when it was opened; null: there was nothing to preview, or the models failed."""
    closed_at: AwareDatetime | None
    closed_by: str | None
    closing_reason: str | None


class ProposalDetails(ProposalReply, frozen=True, kw_only=True):
    """A proposal with what it would change."""

    changes: list[ChangeReply]
    """Empty once they are committed: see the edits' versions."""
    stale: str | None
    """Why it can no longer be accepted although it is open, and what to do; null: it can."""


class ProposalsReply(msgspec.Struct, frozen=True, kw_only=True):
    """A page of proposals."""

    proposals: list[ProposalReply]
    """In the order in which they were opened."""
    next_cursor: str | None
    """Pass it to get the following page; null: this was the last."""


def proposal_reply(context: ControlPlaneContext, proposal: Proposal) -> ProposalReply:
    """`proposal` in the form of the API."""
    return ProposalReply(**_fields(context, proposal))


def proposal_details(
    context: ControlPlaneContext,
    proposal: Proposal,
    changes: Sequence[ProposedChange],
    current: dict[str, Edit],
) -> ProposalDetails:
    """`proposal` with its changes, compared with the current versions of its edits."""
    is_open = proposal.state is ProposalState.OPEN
    return ProposalDetails(
        **_fields(context, proposal),
        changes=[_change(change, current.get(change.edit.id)) for change in changes],
        stale=staleness(changes, current) if is_open else None,
    )


def proposal_response(
    context: ControlPlaneContext, proposal: Proposal, *, status: int = 200
) -> Response[ProposalReply]:
    """The proposal with its revision as ETag, and if it is new with its path."""
    headers = {"etag": f'"{proposal.revision}"'}
    if status != 200:
        headers["location"] = _url(proposal)
    return Response(proposal_reply(context, proposal), status_code=status, headers=headers)


def _url(proposal: Proposal) -> str:
    return f"/serac/v1/proposals/{proposal.id}"


def _fields(context: ControlPlaneContext, proposal: Proposal) -> dict[str, Any]:
    return {
        "id": proposal.id,
        "url": _url(proposal),
        "state": proposal.state,
        "action": proposal.action,
        "edit_ids": list(proposal.edit_ids),
        "author": proposal.author,
        "reason": proposal.reason,
        "created_at": proposal.created_at,
        "expires_at": proposal.expires_at,
        "needed": context.proposals.needed(proposal.namespace),
        "agreed": sum(verdict.accepts for verdict in proposal.verdicts),
        "verdicts": [
            VerdictReply(
                approver=verdict.approver, accepts=verdict.accepts, reason=verdict.reason, at=verdict.at
            )
            for verdict in proposal.verdicts
        ],
        "effect": proposal.effect,
        "closed_at": proposal.closed_at,
        "closed_by": proposal.closed_by,
        "closing_reason": proposal.closing_reason,
    }


def _change(change: ProposedChange, current: Edit | None) -> ChangeReply:
    edit = change.edit
    before = {name: None if current is None else getattr(current, name) for name in CONTENT_FIELDS}
    after = {name: getattr(edit, name) for name in CONTENT_FIELDS}
    return ChangeReply(
        action=change.action,
        edit_id=edit.id,
        base_version=edit.version - 1,
        current_version=0 if current is None else current.version,
        fields=[
            FieldDiff(field=name, before=before[name], after=after[name])
            for name in CONTENT_FIELDS
            if before[name] != after[name] and (before[name] is not None or after[name] != ())
        ],
        reason=edit.reason,
    )
