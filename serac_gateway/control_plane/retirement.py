"""Retires facts that a base model has learnt, in one commit, and only the very versions that it learnt."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import msgspec

from serac_gateway.control_plane.approval import ApprovalOf, no_approval
from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.audiences import audience_text
from serac_gateway.domain.edits import Attribution, AwareDatetime, Edit, EditKind, EditState, check_edit_id
from serac_gateway.errors import InvalidRequestError, PreconditionFailedError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import MAX_CHANGES

_READ_AT_A_TIME = 500
_TRIES = 5


class VersionMade(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of an edit, as no other store has it."""

    id: str
    version: Annotated[int, msgspec.Meta(ge=1)]
    created_at: AwareDatetime
    """When it was made: another gateway's edit of the same id and version has another time."""


class Kept(StrEnum):
    """Why an edit is not retired."""

    MISSING = "missing"
    PURGED = "purged"
    ALREADY_RETIRED = "already_retired"
    CHANGED = "changed"
    """It has a newer version than the one named."""
    OTHER_VERSION = "other_version"
    """The version named was made at another time: it is another store's edit."""
    NOT_A_FACT = "not_a_fact"
    """Suppressions and instructions hold at the gateway alone."""
    NOT_LIVE = "not_live"
    """It is on trial."""
    HAS_A_WINDOW = "has_a_window"
    """It begins or ends at a time, which weights do not know."""
    HAS_AN_AUDIENCE = "has_an_audience"
    """It holds for some requests, and weights answer all alike."""


class RetiredEdit(msgspec.Struct, frozen=True, kw_only=True):
    """An edit that was, or would be, retired."""

    edit_id: str
    version: int
    """The one named; the retired one is the next."""


class KeptEdit(msgspec.Struct, frozen=True, kw_only=True):
    """An edit that stays as it is."""

    edit_id: str
    version: int
    """The one named."""
    code: Kept
    detail: str


class Retirement(msgspec.Struct, frozen=True, kw_only=True):
    """What a retirement did, or would do."""

    log_id: str
    """The log's last entry before: a rollback to it brings back all that was retired."""
    retired: tuple[RetiredEdit, ...]
    """In the order given; all in one commit."""
    kept: tuple[KeptEdit, ...]


class PlannedRetirement(msgspec.Struct, frozen=True, kw_only=True):
    """A retirement that is not made yet."""

    retirement: Retirement
    versions: list[NextVersion]


async def retire_versions(
    writer: EditWriter,
    store: EditStore,
    namespace: str,
    versions: Sequence[VersionMade],
    attribution: Attribution,
    *,
    dry_run: bool = False,
    approval_of: ApprovalOf = no_approval,
) -> Retirement:
    """Retire, in one commit, those of `versions` that are current, live facts without window or audience.

    With `dry_run` nothing is changed.

    Raises:
        InvalidRequestError: None or more than `MAX_CHANGES` are given, one twice, or an id breaks the rules.
        PreconditionFailedError: Others wrote all the while; try again.
        ApprovalNeededError: Others must agree, and `approval_of` gives none.
    """
    for attempt in itertools.count(1):
        planned = await plan_retirement(store, namespace, versions, attribution)
        if planned.versions and not dry_run:
            approval = approval_of(planned.versions)
            log_end = planned.retirement.log_id
            try:
                await writer.commit(namespace, planned.versions, expected_log_id=log_end, approval=approval)
            except PreconditionFailedError:
                if attempt == _TRIES:
                    raise
                continue
        return planned.retirement
    raise AssertionError("itertools.count ended")


async def plan_retirement(
    store: EditStore, namespace: str, versions: Sequence[VersionMade], attribution: Attribution
) -> PlannedRetirement:
    """What a retirement would do now. Raises InvalidRequestError as `retire_versions` does."""
    _check(versions)
    log_end = await store.log_end(namespace)
    current = await _current(store, namespace, versions)
    kept = [refusal for made in versions if (refusal := _refusal(made, current.get(made.id)))]
    kept_ids = {refusal.edit_id for refusal in kept}
    retiring = [made for made in versions if made.id not in kept_ids]
    retirement = Retirement(
        log_id=log_end,
        retired=tuple(RetiredEdit(edit_id=made.id, version=made.version) for made in retiring),
        kept=tuple(kept),
    )
    retired = [NextVersion.retired(current[made.id], attribution) for made in retiring]
    return PlannedRetirement(retirement=retirement, versions=retired)


def _check(versions: Sequence[VersionMade]) -> None:
    if not 0 < len(versions) <= MAX_CHANGES:
        raise InvalidRequestError(
            f"{len(versions):,} edits are given; one commit takes 1 to {MAX_CHANGES:,}: send several",
            field="edits",
            details={"value": len(versions), "limit": MAX_CHANGES},
        )
    seen: set[str] = set()
    for made in versions:
        if check_edit_id(made.id) in seen:
            raise InvalidRequestError(
                f"edit {made.id!r} is given twice; give each once", field="edits", details={"value": made.id}
            )
        seen.add(made.id)


async def _current(store: EditStore, namespace: str, versions: Sequence[VersionMade]) -> dict[str, Edit]:
    current: dict[str, Edit] = {}
    for begin in range(0, len(versions), _READ_AT_A_TIME):
        ids = [made.id for made in versions[begin : begin + _READ_AT_A_TIME]]
        current |= {stored.edit.id: stored.edit for stored in await store.stored_many(namespace, ids)}
    return current


def _refusal(made: VersionMade, edit: Edit | None) -> KeptEdit | None:
    """Why the edit stays; None if it may be retired."""
    why = _why_kept(made, edit)
    if why is None:
        return None
    return KeptEdit(edit_id=made.id, version=made.version, code=why[0], detail=why[1])


def _why_kept(made: VersionMade, edit: Edit | None) -> tuple[Kept, str] | None:
    if edit is None:
        return Kept.MISSING, "the namespace has no such edit"
    if edit.state is EditState.PURGED:
        return Kept.PURGED, "it was purged; the weights still hold what was to be forgotten"
    if edit.state is EditState.RETIRED:
        return Kept.ALREADY_RETIRED, f"it is retired since {edit.created_at:%Y-%m-%d %H:%M} UTC"
    if edit.version != made.version:
        return Kept.CHANGED, f"it is version {edit.version} now, and the weights hold version {made.version}"
    if edit.created_at != made.created_at:
        return (
            Kept.OTHER_VERSION,
            f"version {made.version} was made here at {edit.created_at.isoformat()}, not at"
            f" {made.created_at.isoformat()}: it is an edit of another gateway",
        )
    if edit.kind is not EditKind.FACT:
        return Kept.NOT_A_FACT, f"a {edit.kind.value} holds at the gateway alone; retire it by its id"
    if edit.state is not EditState.LIVE:
        return Kept.NOT_LIVE, f"it is on trial ({edit.state.value})"
    if edit.valid_from is not None or edit.valid_until is not None:
        return Kept.HAS_A_WINDOW, "it begins or ends at a time, which weights do not know"
    if edit.audience:
        return (
            Kept.HAS_AN_AUDIENCE,
            f"it holds for {audience_text(edit.audience)}, and weights answer all alike",
        )
    return None
