"""Rolls a whole namespace back to its state at an entry of its log."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable

import msgspec

from serac_gateway.control_plane.approval import ApprovalOf, no_approval
from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import Attribution, Edit, EditState, retired, same_content
from serac_gateway.errors import InvalidRequestError, PreconditionFailedError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import LOG_START, MAX_CHANGES, Action, log_id_order

_PAGE = 1_000
_READ_AT_A_TIME = 64
_TRIES = 5


class RolledBack(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollback does to one edit."""

    edit_id: str
    from_version: int
    """The current one; the new one is the next."""
    to_version: int | None
    """The version whose content and state come back; null: the edit is newer and becomes retired."""
    state: EditState
    """After the rollback."""


class Rollback(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollback did, or would do."""

    log_id: str
    """Everything is as it was after this entry, but for `purged`."""
    changes: tuple[RolledBack, ...]
    """By edit id; all were made in one commit."""
    purged: tuple[str, ...]
    """Edits that were purged since: their content cannot come back."""


class PlannedRollback(msgspec.Struct, frozen=True, kw_only=True):
    """A rollback that is not made yet."""

    rollback: Rollback
    versions: list[NextVersion]
    log_end: str
    """Where the log ended when it was planned."""


async def roll_back(
    writer: EditWriter,
    store: EditStore,
    namespace: str,
    log_id: str,
    attribution: Attribution,
    *,
    dry_run: bool = False,
    approval_of: ApprovalOf = no_approval,
) -> Rollback:
    """Make new versions, in one commit, so that every edit is as it was after entry `log_id`.

    Edits that were added later become retired. With `dry_run` nothing is changed.

    Raises:
        InvalidRequestError: There is no such entry, or more than `MAX_CHANGES` edits have changed since.
        PreconditionFailedError: Others wrote all the while; try again.
        ApprovalNeededError: Others must agree, and `approval_of` gives none.
    """
    for attempt in itertools.count(1):
        planned = await plan_rollback(store, namespace, log_id, attribution)
        if planned.versions and not dry_run:
            approval = approval_of(planned.versions)
            try:
                await writer.commit(
                    namespace, planned.versions, expected_log_id=planned.log_end, approval=approval
                )
            except PreconditionFailedError:
                if attempt == _TRIES:
                    raise
                continue
        return planned.rollback
    raise AssertionError("itertools.count ended")


async def plan_rollback(
    store: EditStore, namespace: str, log_id: str, attribution: Attribution
) -> PlannedRollback:
    """What a rollback would do now. Raises InvalidRequestError as `roll_back` does."""
    reason = attribution.reason or f"rollback to log id {log_id}"
    attribution = msgspec.structs.replace(attribution, reason=reason)
    await _check_entry(store, namespace, log_id)
    log_end = await store.log_end(namespace)
    firsts = await _first_versions_after(store, namespace, log_id)
    versions, purged = await _versions(store, namespace, firsts, attribution)
    rollback = Rollback(
        log_id=log_id,
        changes=tuple(_rolled_back(version, firsts[version.edit.id]) for version in versions),
        purged=tuple(purged),
    )
    return PlannedRollback(rollback=rollback, versions=versions, log_end=log_end)


async def _check_entry(store: EditStore, namespace: str, log_id: str) -> None:
    ms, sequence = log_id_order(log_id)
    if (ms, sequence) == (0, 0):
        return
    before = f"{ms}-{sequence - 1}" if sequence else f"{ms - 1}-{10**18 - 1}"
    entries = await store.evidence(namespace, after=before, limit=1)
    if not entries or log_id_order(entries[0].log_id) != (ms, sequence):
        raise InvalidRequestError(
            f"the log of namespace {namespace!r} has no entry {log_id!r}; take one that `serac log list`"
            f" shows, or {LOG_START!r} for the time before the first",
            field="log_id",
            details={"value": log_id},
        )


async def _first_versions_after(store: EditStore, namespace: str, log_id: str) -> dict[str, int]:
    """Each edit that changed after the entry, with the first version it got then."""
    firsts: dict[str, int] = {}
    while page := await store.evidence(namespace, after=log_id, limit=_PAGE):
        for entry in page:
            firsts.setdefault(entry.edit_id, entry.version)
        log_id = page[-1].log_id
    return dict(sorted(firsts.items()))


async def _versions(
    store: EditStore, namespace: str, firsts: dict[str, int], attribution: Attribution
) -> tuple[list[NextVersion], list[str]]:
    """The versions to make, and the ids of the edits that were purged."""
    versions: list[NextVersion] = []
    purged: list[str] = []
    for batch in _batched(firsts.items(), _READ_AT_A_TIME):
        pairs = await asyncio.gather(
            *(_then_and_now(store, namespace, *edit_and_version) for edit_and_version in batch)
        )
        for then, now in pairs:
            if now.state is EditState.PURGED:
                purged.append(now.id)
            elif then is None and now.state is not EditState.RETIRED:
                # In the log a rollback as well, because one commit makes it with the others.
                versions.append(
                    NextVersion(action=Action.ROLLBACK, edit=retired(now, attribution), current=now)
                )
            elif then is not None and not same_content(then, now):
                versions.append(NextVersion.rolled_back(now, then, attribution))
        if len(versions) > MAX_CHANGES:
            raise InvalidRequestError(
                f"more than {MAX_CHANGES:,} edits have changed since that entry, and one commit takes no"
                " more; roll back to later entries first, one after the other",
                field="log_id",
                details={"limit": MAX_CHANGES},
            )
    return versions, purged


async def _then_and_now(
    store: EditStore, namespace: str, edit_id: str, first: int
) -> tuple[Edit | None, Edit]:
    now = await store.get(namespace, edit_id)
    then = None if first == 1 else await store.get(namespace, edit_id, version=first - 1)
    return then, now


def _rolled_back(version: NextVersion, first: int) -> RolledBack:
    edit = version.edit
    return RolledBack(
        edit_id=edit.id,
        from_version=edit.version - 1,
        to_version=None if first == 1 else first - 1,
        state=edit.state,
    )


def _batched(items: Iterable[tuple[str, int]], size: int) -> Iterable[tuple[tuple[str, int], ...]]:
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch
