"""What calls return. Members of later releases are ignored, so an older client reads a newer gateway."""

from __future__ import annotations

from typing import Any

import msgspec

from serac_gateway.domain.audiences import Audience
from serac_gateway.domain.edits import AwareDatetime, Edit, EditState


class EditConflict(msgspec.Struct, frozen=True, kw_only=True):
    """An edit that answers the same question differently."""

    edit_id: str
    edit_version: int
    state: EditState
    prompt: str
    target_new: str
    superseded: bool = False
    """It was retired in the same commit."""


class EditWarning(msgspec.Struct, frozen=True, kw_only=True):
    """What may be amiss with an edit that was written all the same."""

    code: str
    detail: str


class KnownEdit(Edit, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """An edit as the gateway has it."""

    in_force: bool | None = None
    """Whether requests are decided with it now; None in lists."""
    conflicts: list[EditConflict] | None = None
    """After a write: the edits that it contradicts; None: nobody looked, or the search failed."""
    warnings: tuple[EditWarning, ...] = ()
    """After a write."""


class Edits(msgspec.Struct, frozen=True, kw_only=True):
    """A page of edits."""

    edits: list[KnownEdit]
    next_cursor: str | None
    """For the next page; None: this was the last."""
    similarities: list[float] | None = None
    """Of a search by meaning: one an edit, -1..1."""


class VerdictRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What an approver says of a proposal."""

    approver: str
    accepts: bool
    reason: str
    at: AwareDatetime


class FieldChange(msgspec.Struct, frozen=True, kw_only=True):
    """A field that would change."""

    field: str
    before: Any
    after: Any


class EditChange(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of one edit."""

    action: str
    edit_id: str
    base_version: int
    current_version: int
    fields: list[FieldChange]
    reason: str | None = None


class ProposalRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A change that waits for the agreement of others, or did."""

    id: str
    state: str
    """open, accepted, rejected, withdrawn or expired."""
    action: str
    edit_ids: list[str]
    author: str
    reason: str | None
    created_at: AwareDatetime
    expires_at: AwareDatetime
    needed: int
    """How many others must agree."""
    agreed: int
    verdicts: list[VerdictRecord]
    closing_reason: str | None = None
    changes: list[EditChange] | None = None
    """Only where a single proposal was read."""
    stale: str | None = None
    """Why it can no longer be accepted although it is open."""


class Proposals(msgspec.Struct, frozen=True, kw_only=True):
    """A page of proposals, in the order in which they were made."""

    proposals: list[ProposalRecord]
    next_cursor: str | None


class DecisionCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """An edit near a question."""

    edit_id: str
    edit_version: int
    prompt: str
    target_new: str
    form: str
    """The text of the edit that lies nearest."""
    similarity: float
    scope_probability: float
    scope_threshold: float
    audience: Audience = {}
    """For whose requests it holds; empty: everybody's."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of a question, and why."""

    in_scope: bool
    route: str
    reason: str
    edit_id: str | None
    """The edit that would answer."""
    scope_probability: float | None
    scope_threshold: float | None
    candidates: list[DecisionCandidate]
    """Most probable first."""
    other_audiences: list[DecisionCandidate] = []
    """Edits in whose scope the question is, for requests with other labels. Most probable first."""


class Decisions(msgspec.Struct, frozen=True, kw_only=True):
    """One decision a question, in order."""

    decisions: list[Decision]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of the API key's namespaces; those of requests are of this process since its start."""

    edits: dict[str, int]
    """Edits in force, by namespace."""
    routes: Any
    """Requests by route and reason."""
    governed: Any
    """Requests that an edit answered, by edit."""
