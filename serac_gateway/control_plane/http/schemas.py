"""The JSON of edits, and of what several calls have in common: conflicts, verifications, health, problems.

A body that one call alone has is defined beside its handler.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import msgspec

from serac_gateway.control_plane.conflicts import Conflict
from serac_gateway.control_plane.retirement import VersionMade
from serac_gateway.control_plane.verification import Verified
from serac_gateway.control_plane.writer import Written
from serac_gateway.domain.audiences import Audience
from serac_gateway.domain.edits import AwareDatetime, Edit, EditState
from serac_gateway.stores.ports import ProbeOutcome, Verification
from serac_gateway.stores.records import MAX_CHANGES

MAX_PAGE = 1_000
DEFAULT_PAGE = 100


class ConflictReply(msgspec.Struct, frozen=True, kw_only=True):
    """An edit that answers the same question differently."""

    edit_id: str
    edit_version: int
    state: EditState
    prompt: str
    target_new: str
    audience: Audience
    answers_prompt: float
    """P(that edit answers this one's prompt)."""
    prompt_answered: float
    """P(this edit answers that one's prompt)."""
    superseded: bool = False
    """It was retired in the same commit."""


class ProbeReply(ProbeOutcome, frozen=True, kw_only=True):
    """The outcome of a probe, with its texts."""

    query: str
    answer: str | None
    """null: the counterfactual model did not run, or failed."""


class VerificationReply(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an edit takes effect. It is stored without texts."""

    edit_id: str
    edit_version: int
    at: AwareDatetime
    passed: bool
    probes: list[ProbeReply]


class WarningCode(StrEnum):
    """What an editor is warned of."""

    RARELY_FIRES = "rarely_fires"
    """None of its own paraphrases reaches the threshold."""
    FORMS_LEFT_OUT = "forms_left_out"
    """Not every name is searched in every text."""
    AUDIENCE_NOT_CONFIGURED = "audience_not_configured"
    """No request can be in its audience."""
    REPLIES_NOT_GUARDED = "replies_not_guarded"
    """Replies of the base model are not watched for the value of a suppression."""


class EditWarning(msgspec.Struct, frozen=True, kw_only=True):
    """What may be amiss with an edit that was written all the same."""

    code: WarningCode
    detail: str
    """What it is, and the remedy."""


class EditReply(Edit, frozen=True, kw_only=True):
    """An edit and its effect."""

    in_force: bool
    """Whether requests are decided with it now, by its state and its window; edits on trial are, too."""
    conflicts: list[ConflictReply] | msgspec.UnsetType | None = msgspec.UNSET
    """After a write: the edits that it contradicts; null: the search for them failed."""
    warnings: list[EditWarning] | msgspec.UnsetType = msgspec.UNSET
    """After a write, if there is any."""
    verification: Verification | msgspec.UnsetType | None = msgspec.UNSET
    """When the edit is read: its last one; null: it was never verified."""
    verified: VerificationReply | msgspec.UnsetType = msgspec.UNSET
    """After a write with `verify=true`."""


class EditVersions(msgspec.Struct, frozen=True, kw_only=True):
    """All versions of one edit."""

    versions: list[Edit]
    """Oldest first."""


class SearchMode(StrEnum):
    """How a search compares its text with edits."""

    TEXT = "text"
    MEANING = "meaning"


class EditPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of current edits."""

    edits: Sequence[Edit]
    next_cursor: str | None
    """Pass it to get the following page; null: this was the last."""
    similarities: Sequence[float] | None = None
    """Of a search by meaning, for each edit the cosine of its nearest form, -1..1."""
    damaged: Sequence[str] | msgspec.UnsetType = msgspec.UNSET
    """Ids of edits that belong to this page and cannot be read; `serac store repair` mends them."""


class WhoAndWhy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who makes a version, and why."""

    author: str | None = None
    """An API key's own name comes first."""
    reason: str | None = None
    ticket: str | None = None


class EditRollback(WhoAndWhy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Back to an older version."""

    version: Annotated[int, msgspec.Meta(ge=1)]
    """The version whose content and state the new version copies."""


class EditPurge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order to forget an edit."""

    reason: str
    """Why; it stays in the tombstone, so put nothing into it that is to be forgotten."""
    author: str | None = None
    """An API key's own name comes first."""
    ticket: str | None = None
    """Under which case or order; it stays as well."""


class NamespaceRollback(WhoAndWhy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Back to what the namespace was after an entry of its log."""

    log_id: Annotated[str, msgspec.Meta(description="`0-0`: before the first entry")]
    dry_run: bool = False
    """Report what would change, and change nothing."""


class EditsRetirement(WhoAndWhy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Retire versions that a base model has learnt."""

    # A list: of a tuple's items Litestar says that they are of this shape or of any, but not of both.
    edits: Annotated[list[VersionMade], msgspec.Meta(min_length=1, max_length=MAX_CHANGES)]
    """No edit twice."""
    dry_run: bool = False
    """Report what would change, and change nothing."""


class Liveness(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    live: bool


class ReadinessReport(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests are decided."""

    ready: bool
    missing: dict[str, str]
    """What is still loading, and how far it is."""
    store: str
    """"reachable", "loading", or why not. Without it a loaded gateway still decides, but writes nothing."""
    quarantined_namespaces: int = 0
    """Namespaces of which something stored is damaged: their requests are refused, all others are served. The
    log and `store:repair` name them."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error (RFC 9457). An error may have further members."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    value: str | float | bool | None = None
    limit: str | float | None = None


def edit_reply(
    edit: Edit,
    written: Written | None = None,
    *,
    warnings: Sequence[EditWarning] = (),
    verification: Verification | msgspec.UnsetType | None = msgspec.UNSET,
    verified: Verified | None = None,
) -> EditReply:
    """`edit` in the form of the API, after a write with its conflicts."""
    conflicts: list[ConflictReply] | msgspec.UnsetType | None = msgspec.UNSET
    if written is not None:
        superseded = {edit.id for edit in written.superseded}
        conflicts = None if written.conflicts is None else conflict_replies(written.conflicts, superseded)
    return EditReply(
        **msgspec.structs.asdict(edit),
        in_force=edit.is_in_force(datetime.now(UTC)),
        conflicts=conflicts,
        warnings=list(warnings) or msgspec.UNSET,
        verification=verification,
        verified=msgspec.UNSET if verified is None else verification_reply(verified),
    )


def conflict_replies(
    conflicts: tuple[Conflict, ...] | list[Conflict], superseded: set[str] | frozenset[str] = frozenset()
) -> list[ConflictReply]:
    """`conflicts` in the form of the API."""
    return [
        ConflictReply(
            edit_id=conflict.edit.id,
            edit_version=conflict.edit.version,
            state=conflict.edit.state,
            prompt=conflict.edit.prompt,
            target_new=conflict.edit.target_new,
            audience=conflict.edit.audience,
            answers_prompt=conflict.answers_prompt,
            prompt_answered=conflict.prompt_answered,
            superseded=conflict.edit.id in superseded,
        )
        for conflict in conflicts
    ]


def verification_reply(verified: Verified) -> VerificationReply:
    """`verified` in the form of the API."""
    verification = verified.verification
    return VerificationReply(
        edit_id=verification.edit_id,
        edit_version=verification.edit_version,
        at=verification.at,
        passed=verification.passed,
        probes=[
            ProbeReply(**msgspec.structs.asdict(probe.outcome), query=probe.query, answer=probe.answer)
            for probe in verified.probes
        ],
    )
