"""Proposals: changes that wait for the agreement of others, what a store keeps of them, and the port to them.

A proposal's changes are fixed when it is opened; what others say of it makes new revisions of its head. The
commit of an accepted one and its closing are one step of the edit store: see `Commit.closes`.
"""

from __future__ import annotations

import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

import msgspec

from serac_gateway.auth.principals import TokenHolder
from serac_gateway.domain.edits import AwareDatetime, Edit
from serac_gateway.errors import InvalidRequestError
from serac_gateway.stores.records import Action, Closing, Idempotency

_PROPOSAL_ID = re.compile(r"pr_[0-9a-f]{22}")

MAX_PROPOSED_CHANGES = 1_000
"""Of one proposal: a person can hardly read more."""
MAX_OPEN_PROPOSALS = 1_000
"""Of one namespace."""


class ProposalState(StrEnum):
    """Where a proposal stands."""

    OPEN = "open"
    ACCEPTED = "accepted"
    """Its changes are committed."""
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class ProposedChange(msgspec.Struct, frozen=True, kw_only=True):
    """The next version of one edit, if others agree."""

    action: Action
    edit: Edit
    """Its version is that of the current one + 1, which must still be current at the commit."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody says of a proposal."""

    approver: str
    """As edits name authors: name, and id of the API key or subject of the token."""
    owner: str
    """Whose key it is, in a form in which two keys of one person are equal."""
    key_id: str
    accepts: bool
    reason: str
    at: AwareDatetime
    idempotency: str | None = None
    """Digest of the idempotency key that it came with."""
    holder: TokenHolder | None = None
    """Whose token it came with; None: it came with an API key."""


class ForeseenConflict(msgspec.Struct, frozen=True, kw_only=True):
    """A stored edit that a proposed one contradicts. Without texts: a purge of it need not look here."""

    edit_id: str
    """Of the proposed edit."""
    other_id: str
    other_version: int
    superseded: bool
    """Whether it would be retired in the same commit."""


class ForeseenEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What a proposal would do, as far as it was previewed when it was opened."""

    previewed: int
    """How many of its changes were previewed."""
    refused: int = 0
    """How many of these the namespace would refuse because of their conflicts."""
    conflicts: list[ForeseenConflict] = []
    paraphrases: int = 0
    """How many paraphrases of the prompts, made by rules, were decided on."""
    paraphrases_captured: int = 0
    recorded: int | None = None
    """How many requests of the recorded traffic were looked at; None: none are recorded."""
    recorded_captured: int = 0
    """How many of them the edits would capture."""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a proposal: all of it but its changes."""

    id: str
    namespace: str
    revision: int
    """1 when it is opened, one more with each verdict and when it is closed."""
    state: ProposalState
    action: str
    """The call: add, update, retire, retire_versions, restore, rollback, rollback_all or import."""
    edit_ids: tuple[str, ...]
    author: str
    owner: str
    """As a verdict's, and so is `holder`."""
    holder: TokenHolder | None = None
    reason: str | None
    created_at: AwareDatetime
    expires_at: AwareDatetime
    effect: ForeseenEffect | None = None
    """None: there was nothing to preview, or the models failed."""
    verdicts: tuple[Verdict, ...] = ()
    closed_at: AwareDatetime | None = None
    closed_by: str | None = None
    closing_reason: str | None = None

    def is_open(self, now: datetime) -> bool:
        """Whether something can still become of it."""
        return self.state is ProposalState.OPEN and now < self.expires_at

    @property
    def as_closing(self) -> Closing:
        """For the commit of its changes; it is the closed head."""
        return Closing(proposal_id=self.id, revision=self.revision, head=msgspec.json.encode(self))


class ProposalPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of heads, oldest first."""

    proposals: Sequence[Proposal]
    next_cursor: str | None
    """Pass it to get the following page; None: this was the last."""


class ProposalStore(ABC):
    """The proposals of all namespaces.

    Task-safe. Every method raises StoreUnavailableError when the server cannot be reached, and
    InvalidRequestError for a namespace, id or cursor that breaks the rules.
    """

    @abstractmethod
    async def open(
        self,
        proposal: Proposal,
        changes: Sequence[ProposedChange],
        *,
        max_open: int = MAX_OPEN_PROPOSALS,
        idempotency: Idempotency | None = None,
    ) -> Proposal:
        """Keep a new proposal, durably; for a repeated idempotency key the first one with it is returned.

        Raises:
            IdempotencyKeyReusedError: The idempotency key was used with another fingerprint.
            EditConflictError: The id of an edit to be added exists.
            EditNotFoundError: There is no edit of that id to change.
            PreconditionFailedError: The current version of an edit is not the proposed one - 1.
            ProposalConflictError: The namespace has `max_open` open proposals.
        """

    @abstractmethod
    async def get(self, namespace: str, proposal_id: str) -> Proposal:
        """The head. Raises ProposalNotFoundError."""

    @abstractmethod
    async def changes(self, namespace: str, proposal_id: str) -> tuple[ProposedChange, ...]:
        """What it would change; empty once it is committed, and if there is no such proposal."""

    @abstractmethod
    async def replace(self, proposal: Proposal) -> None:
        """Put the next revision of a head in the place of the one before, durably.

        Raises:
            ProposalNotFoundError: There is none.
            PreconditionFailedError: The one before is not its revision - 1.
        """

    @abstractmethod
    async def page(
        self, namespace: str, *, cursor: str | None = None, limit: int = 100, only_open: bool = False
    ) -> ProposalPage:
        """At most `limit` (1 or more) heads in the order in which they were opened."""


def new_proposal_id() -> str:
    """A fresh id that sorts by creation time, as edits' ids do."""
    return f"pr_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(5)}"


def check_proposal_id(proposal_id: str) -> str:
    """`proposal_id` itself.

    Raises:
        InvalidRequestError: It is none.
    """
    if not _PROPOSAL_ID.fullmatch(proposal_id):
        raise InvalidRequestError(
            f"proposal id {proposal_id[:80]!r} is not allowed; take one that the list of proposals shows",
            field="proposal_id",
            details={"value": proposal_id[:80]},
        )
    return proposal_id
