"""How the log's entries are chained by hash, and what shows that they are.

    content_digest = SHA-256(salt + record)
    digest         = SHA-256(previous entry's digest + SHA-256(own fields) + log_id)

`salt` is 32 random hexadecimal digits that lie with the version's record. A purge deletes both: the digest
alone can then not be used to find out by trial what the record was, and the chain stays as it is. The own
fields are ``action, edit_id, version, content_digest, author``, one a line, in UTF-8; only the last may
hold line breaks. Digests are hashed as their 32 bytes and written as hexadecimal digits.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from datetime import UTC, datetime

import msgspec

from serac_gateway.domain.edits import Edit, record_json
from serac_gateway.errors import StoreUnavailableError
from serac_gateway.stores.records import LOG_START, Action, LogEntry, log_id_order

_SALT_BYTES = 16
_FROM_THE_RECORD = ("reason", "ticket", "institution", "source", "source_url", "source_sha256", "legal_basis")
"""What an entry takes over of its version, so that who reads the log need not read all versions."""
_LATEST_MS = 253_402_300_799_000
"""The last second that a `datetime` can hold."""


class VersionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A version as it is stored."""

    salt: str | None
    """None: the version was purged."""
    record: str
    """The JSON of the `Edit`, as it was hashed."""

    @property
    def content_digest(self) -> str:
        """What the version's log entry must hold."""
        return _sha256((self.salt or "").encode() + self.record.encode("utf-8", "replace"))


class LogEvidence(msgspec.Struct, frozen=True, kw_only=True, tag="entry", tag_field="kind"):
    """A log entry as it is stored, unchecked, with the version record it speaks of."""

    log_id: str
    action: str
    edit_id: str
    version: int
    author: str | None
    content_digest: str
    previous_digest: str
    digest: str
    stored: VersionRecord | None
    """None: the record is not there."""
    approval: str | None = None


class VersionCount(msgspec.Struct, frozen=True, kw_only=True, tag="edit", tag_field="kind"):
    """How many version records an edit has."""

    edit_id: str
    versions: int


class LogHead(msgspec.Struct, frozen=True, kw_only=True, tag="head", tag_field="kind"):
    """Where a log ends. Its digest vouches for every entry up to there: note it elsewhere."""

    log_id: str
    digest: str
    length: int
    """Number of entries."""


def genesis(namespace: str) -> str:
    """The digest before the first entry: another one in each namespace."""
    return _sha256(f"serac log of namespace {namespace}".encode())


def empty_head(namespace: str) -> LogHead:
    """The head of a log without entries."""
    return LogHead(log_id=LOG_START, digest=genesis(namespace), length=0)


def sealed(edit: Edit) -> VersionRecord:
    """The record of a new version, with a salt of its own."""
    return VersionRecord(salt=secrets.token_hex(_SALT_BYTES), record=record_json(edit).decode())


def fields_digest(
    *,
    action: str,
    edit_id: str,
    version: int,
    content_digest: str,
    author: str | None,
    approval: str | None = None,
) -> bytes:
    """SHA-256 of an entry's own fields."""
    approved = () if approval is None else ("approved", approval)
    fields = "\n".join((*approved, action, edit_id, str(version), content_digest, author or ""))
    return hashlib.sha256(fields.encode("utf-8", "replace")).digest()


def chained(previous_digest: str, fields: bytes, log_id: str) -> str:
    """The digest of the entry with those `fields_digest` after the one with `previous_digest`."""
    return _sha256(bytes.fromhex(previous_digest) + fields + log_id.encode())


def log_entry(evidence: LogEvidence) -> LogEntry:
    """The entry with time and provenance from its record; of a damaged record, with the time of the log id.

    Raises:
        StoreUnavailableError: The entry itself is damaged.
    """
    at, provenance = log_time(evidence.log_id), dict[str, str | None]()
    if evidence.stored is not None:
        with contextlib.suppress(ValueError):
            edit = msgspec.json.decode(evidence.stored.record, type=Edit)
            at, provenance = edit.created_at, {name: getattr(edit, name) for name in _FROM_THE_RECORD}
    try:
        action = Action(evidence.action)
    except ValueError as exc:
        raise StoreUnavailableError(
            f"log entry {evidence.log_id!r} about edit {evidence.edit_id!r} is damaged ({exc});"
            " `serac log verify` says what happened to the log; restore it from a backup"
        ) from exc
    return LogEntry(
        log_id=evidence.log_id,
        action=action,
        edit_id=evidence.edit_id,
        version=evidence.version,
        at=at,
        author=evidence.author,
        **provenance,
        approval=evidence.approval,
        content_digest=evidence.content_digest,
        previous_digest=evidence.previous_digest,
        digest=evidence.digest,
    )


def log_time(log_id: str) -> datetime:
    """When the store appended the entry, by its own clock."""
    milliseconds, _ = log_id_order(log_id)
    return datetime.fromtimestamp(min(milliseconds, _LATEST_MS) / 1_000, UTC)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
