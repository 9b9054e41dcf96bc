"""The JSON of what edits do: an edit as calls answer with it, conflicts, previews and verifications."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec

from serac_gateway.config.model import ConflictPolicy
from serac_gateway.control_plane.conflicts import Conflict
from serac_gateway.control_plane.http.schemas import MAX_SCOPE_QUERIES, ScopeConversation
from serac_gateway.control_plane.paraphrases import ParaphraseKind
from serac_gateway.control_plane.preview import Preview, Previewed
from serac_gateway.control_plane.verification import Verified
from serac_gateway.control_plane.writer import Written
from serac_gateway.domain.edits import AwareDatetime, Edit, EditDraft, EditState
from serac_gateway.routing.router import Route
from serac_gateway.stores.ports import ProbeOutcome, Verification


class ConflictTold(msgspec.Struct, frozen=True, kw_only=True):
    """An edit that answers the same question differently."""

    edit_id: str
    edit_version: int
    state: EditState
    prompt: str
    target_new: str
    answers_prompt: float
    """P(that edit answers this one's prompt)."""
    prompt_answered: float
    """P(this edit answers that one's prompt)."""
    superseded: bool = False
    """It was retired in the same commit."""


class ProbeReply(ProbeOutcome, frozen=True, kw_only=True):
    """What became of a probe, with its texts."""

    query: str
    answer: str | None
    """null: the counterfactual model was not asked, or failed."""


class VerificationReply(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an edit does what it says. It is kept without texts."""

    edit_id: str
    edit_version: int
    at: AwareDatetime
    passed: bool
    probes: list[ProbeReply]


class PreviewRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An edit that may be stored, and queries to try on it."""

    edit: EditDraft
    queries: Annotated[
        list[str | ScopeConversation],
        msgspec.Meta(description=f"At most {MAX_SCOPE_QUERIES}, as for /scope"),
    ] = []


class PreviewedQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A query, and what the edit would do to it."""

    query: str
    captured: bool
    """Whether the edit would govern it."""
    route: Route
    scope_probability: float | None
    """P(in scope of the edit); null: it lies too far away to be read."""
    governed_by: str | None
    """The stored edit that would govern; null: none would, or the previewed one."""
    context: list[str] = []
    """Earlier turns that count."""
    asked_as: ParaphraseKind | None = None
    """How the prompt was asked otherwise."""
    edit_id: str | None = None
    """The stored edit whose prompt this is."""
    count: int = 1
    """How often it was recorded."""


class PreviewedTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """What of the recorded traffic the edit would capture."""

    recording: bool
    """Whether the namespace's queries are recorded."""
    queries: int
    """Recorded, not yet expired."""
    captured: int
    shown: list[PreviewedQuery]
    """Those captured, most frequent first."""


class PreviewReply(msgspec.Struct, frozen=True, kw_only=True):
    """What an edit would do if it were stored and live, its window open. Nothing was stored."""

    scope_threshold: float
    policy: ConflictPolicy
    refused: bool
    """Whether it would be refused because of its conflicts."""
    conflicts: list[ConflictTold]
    """`superseded`: it would be retired."""
    generated: list[PreviewedQuery]
    """The prompt asked otherwise by fixed rules: a first look, no proof of how people ask."""
    near_misses: list[PreviewedQuery]
    """Prompts of stored edits and recorded queries closest to the threshold, on either side."""
    queries: list[PreviewedQuery]
    """Those given, in order."""
    traffic: PreviewedTraffic


class EditReply(Edit, frozen=True, kw_only=True):
    """An edit, and what is known of its effect."""

    in_force: bool
    """Whether requests are decided with it now, by its state and its window; edits on trial are, too."""
    conflicts: list[ConflictTold] | msgspec.UnsetType | None = msgspec.UNSET
    """After a write: the edits that it contradicts; null: they could not be looked for."""
    verification: Verification | msgspec.UnsetType | None = msgspec.UNSET
    """When the edit is read: its last one; null: it was never verified."""
    verified: VerificationReply | msgspec.UnsetType = msgspec.UNSET
    """After a write with `verify=true`."""


def edit_reply(
    edit: Edit,
    written: Written | None = None,
    *,
    verification: Verification | msgspec.UnsetType | None = msgspec.UNSET,
    verified: Verified | None = None,
) -> EditReply:
    """`edit` as the API tells it, after a write with its conflicts."""
    conflicts: list[ConflictTold] | msgspec.UnsetType | None = msgspec.UNSET
    if written is not None:
        superseded = {one.id for one in written.superseded}
        conflicts = None if written.conflicts is None else conflicts_told(written.conflicts, superseded)
    return EditReply(
        **msgspec.structs.asdict(edit),
        in_force=edit.is_in_force(datetime.now(UTC)),
        conflicts=conflicts,
        verification=verification,
        verified=msgspec.UNSET if verified is None else verification_reply(verified),
    )


def conflicts_told(
    conflicts: tuple[Conflict, ...] | list[Conflict], superseded: set[str] | frozenset[str] = frozenset()
) -> list[ConflictTold]:
    """`conflicts` as the API tells them."""
    return [
        ConflictTold(
            edit_id=one.edit.id,
            edit_version=one.edit.version,
            state=one.edit.state,
            prompt=one.edit.prompt,
            target_new=one.edit.target_new,
            answers_prompt=one.answers_prompt,
            prompt_answered=one.prompt_answered,
            superseded=one.edit.id in superseded,
        )
        for one in conflicts
    ]


def verification_reply(verified: Verified) -> VerificationReply:
    """`verified` as the API tells it."""
    verification = verified.verification
    return VerificationReply(
        edit_id=verification.edit_id,
        edit_version=verification.edit_version,
        at=verification.at,
        passed=verification.passed,
        probes=[
            ProbeReply(**msgspec.structs.asdict(one.outcome), query=one.query, answer=one.answer)
            for one in verified.probes
        ],
    )


def preview_reply(preview: Preview) -> PreviewReply:
    """`preview` as the API tells it."""
    return PreviewReply(
        scope_threshold=preview.scope_threshold,
        policy=preview.policy,
        refused=preview.refused,
        conflicts=conflicts_told(preview.conflicts, set(preview.superseded)),
        generated=[_previewed(one) for one in preview.generated],
        near_misses=[_previewed(one) for one in preview.near_misses],
        queries=[_previewed(one) for one in preview.queries],
        traffic=PreviewedTraffic(
            recording=preview.traffic.recording,
            queries=preview.traffic.queries,
            captured=preview.traffic.captured,
            shown=[_previewed(one) for one in preview.traffic.shown],
        ),
    )


def _previewed(one: Previewed) -> PreviewedQuery:
    return PreviewedQuery(
        query=one.query.text,
        context=list(one.query.context),
        captured=one.captured,
        route=one.route,
        scope_probability=one.scope_probability,
        governed_by=one.governed_by,
        asked_as=one.asked_as,
        edit_id=one.edit_id,
        count=one.count,
    )
