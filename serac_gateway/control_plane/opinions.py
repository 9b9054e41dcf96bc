"""What an approver says of a proposal, whether it was said before, and whether it can still have effect."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from serac_gateway.control_plane.approval import Person
from serac_gateway.domain.edits import Edit
from serac_gateway.errors import IdempotencyKeyReusedError
from serac_gateway.stores.proposals import Proposal, ProposalState, ProposedChange
from serac_gateway.stores.records import Action


class Opinion(msgspec.Struct, frozen=True, kw_only=True):
    """What an approver says."""

    accepts: bool
    reason: str
    idempotency_key: str | None = None


def staleness(changes: Sequence[ProposedChange], current: dict[str, Edit]) -> str | None:
    """Why an open proposal can no longer be committed, and what to do; None: it can."""
    for change in changes:
        edit, now = change.edit, current.get(change.edit.id)
        if change.action is Action.ADD and now is not None:
            return f"edit {edit.id!r} exists by now; withdraw it, and propose to change that one"
        if change.action is not Action.ADD and (now is None or now.version != edit.version - 1):
            version = 0 if now is None else now.version
            return (
                f"it was made against version {edit.version - 1} of edit {edit.id!r}, which is at version"
                f" {version}; withdraw it, and propose the change again"
            )
    return None


def is_repeated(proposal: Proposal, person: Person, opinion: Opinion) -> bool:
    """Whether that person has said so before.

    Raises:
        IdempotencyKeyReusedError: Something else came with the key.
    """
    own = next((verdict for verdict in proposal.verdicts if person.is_also(verdict)), None)
    same = (
        own is not None
        and own.accepts is opinion.accepts
        and (own.key_id == person.key_id or proposal.state is not ProposalState.OPEN)
    )
    digest = key_digest(opinion.idempotency_key)
    for verdict in proposal.verdicts:
        if digest is not None and verdict.idempotency == digest:
            if verdict is own and same and verdict.reason == opinion.reason:
                return True
            key = opinion.idempotency_key or ""
            raise IdempotencyKeyReusedError(
                f"the idempotency key {key[:80]!r} was used for another verdict; send a new key with it",
                field="idempotency-key",
                details={"value": key[:80]},
            )
    return same


def key_digest(key: str | None) -> str | None:
    """What is kept of an idempotency key."""
    return None if key is None else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
