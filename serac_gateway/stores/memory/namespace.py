"""A namespace of the in-memory store: what it holds, and how a change is made to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from serac_gateway.domain.edits import Edit, EditState, tombstone
from serac_gateway.stores.errors import id_purged, id_taken, no_such_edit, stale_version
from serac_gateway.stores.log_chain import (
    LogEvidence,
    LogHead,
    VersionRecord,
    chained,
    empty_head,
    fields_digest,
    sealed,
)
from serac_gateway.stores.records import (
    NO_VECTORS,
    Action,
    Change,
    Committed,
    FormVectors,
    Receipt,
    StoredEdit,
    log_id_order,
)


@dataclass(kw_only=True)
class Remembered:
    """The receipt behind an idempotency key."""

    fingerprint: str
    receipt: Receipt
    until: float
    """On the monotonic clock."""


@dataclass
class Namespace:
    """Everything of one namespace."""

    current: dict[str, StoredEdit] = field(default_factory=dict)
    versions: dict[str, list[VersionRecord]] = field(default_factory=dict)
    log: list[LogEvidence] = field(default_factory=list)
    remembered: dict[str, Remembered] = field(default_factory=dict)


def refuse_unless_next(namespace: str, held: Namespace, change: Change) -> None:
    """Return if the change makes its edit's next version.

    Raises:
        EditConflictError, EditNotFoundError, PreconditionFailedError: It does not.
    """
    edit = change.edit
    current = held.current.get(edit.id)
    if change.action is Action.ADD:
        if current is not None:
            raise (id_purged if current.edit.state is EditState.PURGED else id_taken)(edit.id)
    elif current is None:
        raise no_such_edit(namespace, edit.id)
    elif current.edit.version != edit.version - 1:
        raise stale_version(edit.id, expected=edit.version - 1, current=current.edit.version)


def make(namespace: str, held: Namespace, change: Change) -> Committed:
    """Make a change that is known to be the next one, and append it to the log."""
    edit, head, version = change.edit, head_of(namespace, held), sealed(change.edit)
    log_id = f"{log_id_order(head.log_id)[0] + 1}-0"
    fields = fields_digest(
        action=change.action,
        edit_id=edit.id,
        version=edit.version,
        content_digest=version.content_digest,
        author=edit.author,
    )
    held.log.append(
        LogEvidence(
            log_id=log_id,
            action=change.action,
            edit_id=edit.id,
            version=edit.version,
            author=edit.author,
            content_digest=version.content_digest,
            previous_digest=head.digest,
            digest=chained(head.digest, fields, log_id),
            stored=None,
        )
    )
    versions = held.versions.setdefault(edit.id, [])
    if change.action is Action.PURGE:
        versions[:] = [
            VersionRecord(salt=None, record=msgspec.json.encode(tombstone(edit_of(one))).decode())
            for one in versions
        ]
    versions.append(version)
    held.current[edit.id] = StoredEdit(edit=edit, vectors=_vectors(held, change))
    return Committed(edit_id=edit.id, version=edit.version, log_id=log_id)


def _vectors(held: Namespace, change: Change) -> FormVectors:
    if change.action is Action.PURGE:
        return NO_VECTORS
    return change.vectors or held.current[change.edit.id].vectors


def head_of(namespace: str, held: Namespace) -> LogHead:
    """Where the log ends."""
    if not held.log:
        return empty_head(namespace)
    return LogHead(log_id=held.log[-1].log_id, digest=held.log[-1].digest, length=len(held.log))


def edit_of(version: VersionRecord) -> Edit:
    """The edit in the record."""
    return msgspec.json.decode(version.record, type=Edit)
