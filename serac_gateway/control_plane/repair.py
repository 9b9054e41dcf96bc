"""Mends what is damaged of a namespace in the store, after the damaged bytes lie in a file.

Nothing is changed that the file does not hold. What the store cannot mend by itself is written as any change
is: through the log, so that the chain stays sound and every gateway follows.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import (
    CONTENT_FIELDS,
    Attribution,
    DecidedState,
    Edit,
    EditDraft,
    EditKind,
    EditState,
    new_edit_id,
)
from serac_gateway.errors import EditNotFoundError, PreconditionFailedError, StoreUnavailableError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.damage import Damage, NamespaceRepairer, Remedy
from serac_gateway.stores.records import StoredEdit

log = logging.getLogger(__name__)

_PASSES = 3
"""What one pass mends may show, or make, what the next one does."""


class DamageReport(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is, or was, damaged."""

    fault: str
    """What is wrong, in a few words without content."""
    remedy: Remedy
    edit_id: str | None = None
    """None: it is the log, its head, or a whole key."""
    version: int | None = None
    """The version that the remedy uses."""
    mended: bool = False
    new_id: str | None = None
    """After the remedy `replace`: the id under which the edit was added anew."""


class RepairReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a repair found, and what it did."""

    namespace: str
    applied: bool
    """Whether anything was to be changed; false: a dry run."""
    damages: list[DamageReport]
    remaining: int
    """How many of them are not mended."""
    saved_to: str | None = None
    """The file on the gateway's machine that holds what was stored before, in base64, a damage a line."""


async def repair(
    store: EditStore,
    writer: EditWriter,
    namespace: str,
    *,
    folder: Path,
    apply: bool,
    attribution: Attribution,
) -> RepairReport:
    """Find what is damaged of the namespace and, with `apply`, mend it; the damaged bytes go into `folder`.

    Broken off in the middle it may be repeated: each remedy is one step, and what is mended is not damaged.

    Raises:
        StoreUnavailableError: The store failed, or the file cannot be written, and then nothing was changed.
        ModelUnavailableError: The encoder failed.
    """
    reports: list[DamageReport] = []
    saved_to: Path | None = None
    for _ in range(_PASSES if apply else 1):
        repairer = store.repairer(namespace)
        present = [damage async for damage in repairer.damages()]
        fresh = [damage for damage in present if damage.remedy is not Remedy.NONE]
        kept = [_report(damage) for damage in present if damage.remedy is Remedy.NONE]
        if not apply:
            reports = [_report(damage) for damage in present]
            break
        reports = [report for report in reports if report.remedy is not Remedy.NONE] + kept
        if not fresh:
            break
        saved_to = await asyncio.to_thread(_saved, present, namespace, folder, saved_to)
        for damage in fresh:
            done = await _mended(store, writer, repairer, namespace, damage, attribution)
            log.warning(
                "namespace %s: edit %s: %s: %s%s",
                namespace, done.edit_id, done.fault, done.remedy, "" if done.mended else " failed",
            )  # fmt: skip
            reports.append(done)
    return RepairReport(
        namespace=namespace,
        applied=apply,
        damages=reports,
        remaining=sum(not report.mended for report in reports),
        saved_to=None if saved_to is None else str(saved_to),
    )


async def _mended(
    store: EditStore,
    writer: EditWriter,
    repairer: NamespaceRepairer,
    namespace: str,
    damage: Damage,
    attribution: Attribution,
) -> DamageReport:
    report = _report(damage)
    try:
        if damage.remedy is Remedy.ENCODE:
            assert damage.readable is not None
            (vectors,) = await writer.vectors([damage.readable])
            made = [StoredEdit(edit=damage.readable, vectors=vectors)]
            return msgspec.structs.replace(report, mended=await store.replace_vectors(namespace, made) == 1)
        if damage.remedy in (Remedy.PURGE, Remedy.REPLACE):
            versions = _commit_of(namespace, damage, attribution)
            approval = writer.expedited(namespace, attribution.author)
            await writer.commit(namespace, versions, approval=approval)
            added = versions[1].edit.id if len(versions) > 1 else None
            return msgspec.structs.replace(report, mended=True, new_id=added)
    except (PreconditionFailedError, EditNotFoundError):
        return report  # another gateway has written it meanwhile
    return msgspec.structs.replace(report, mended=await repairer.mend(damage))


def _commit_of(namespace: str, damage: Damage, attribution: Attribution) -> list[NextVersion]:
    """The tombstone of a lost edit and, where an older version was in force, that one as a new edit."""
    assert damage.edit_id is not None
    lost = Edit(
        id=damage.edit_id,
        namespace=namespace,
        version=damage.versions,
        state=EditState.RETIRED,
        kind=EditKind.FACT,
        prompt="lost",
        target_new="lost",
        created_at=datetime.now(UTC),
    )
    why = Attribution(author=attribution.author, reason=f"damaged: {damage.fault[:500]}")
    versions = [NextVersion.purged(lost, why)]
    if damage.remedy is Remedy.REPLACE:
        assert damage.readable is not None
        versions.append(NextVersion.added(namespace, _draft_of(damage.readable, attribution)))
    return versions


def _draft_of(edit: Edit, attribution: Attribution) -> EditDraft:
    content = {name: getattr(edit, name) for name in CONTENT_FIELDS}
    return EditDraft(
        **{**content, "state": DecidedState(edit.state.value)},
        id=new_edit_id(),
        author=attribution.author,
        reason=f"version {edit.version} of edit {edit.id}, whose newer version is damaged",
    )


def _report(damage: Damage) -> DamageReport:
    version = None if damage.readable is None else damage.readable.version
    return DamageReport(fault=damage.fault, remedy=damage.remedy, edit_id=damage.edit_id, version=version)


def _saved(damages: Sequence[Damage], namespace: str, folder: Path, file: Path | None) -> Path:
    """Append what is stored to the file, or to a new one in `folder`, and wait until it is on the disk.

    Raises:
        StoreUnavailableError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if file is None:
            file = folder / f"{namespace}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.ndjson"
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            for damage in damages:
                stored = {place: base64.b64encode(data).decode() for place, data in damage.stored.items()}
                line = {**msgspec.to_builtins(_report(damage)), "namespace": namespace, "stored": stored}
                target.write(msgspec.json.encode(line) + b"\n")
            target.flush()
            os.fsync(target.fileno())
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    except OSError as exc:
        raise StoreUnavailableError(
            f"cannot keep the damaged bytes in {str(folder)!r}: {(exc.strerror or str(exc)).lower()};"
            " nothing was changed; make room, or make it writable"
        ) from exc
    return file
