"""How versions, vectors, log entries and commits are written in Redis."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

import msgspec

from serac_gateway.domain.edits import Edit, EditState, record_json
from serac_gateway.domain.vectors import vectors_from_bytes, vectors_to_bytes
from serac_gateway.errors import DamagedRecordError
from serac_gateway.stores.log_chain import (
    LogEvidence,
    LogHead,
    VersionRecord,
    empty_head,
    fields_digest,
    genesis,
    sealed,
)
from serac_gateway.stores.records import (
    NO_VECTORS,
    Change,
    Closing,
    Commit,
    Committed,
    FormVectors,
    Idempotency,
)
from serac_gateway.stores.redis.connection import Word
from serac_gateway.stores.redis.keys import NamespaceKeys

_SALT_CHARS = 32
_VERSION = re.compile("[0-9]{1,9}")
_LOG_ID = re.compile(rb"[0-9]{1,18}-[0-9]{1,18}")
_DIGEST = re.compile(rb"[0-9a-f]{64}")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_STATES = tuple(EditState)


class _StoredVectors(msgspec.Struct, frozen=True, kw_only=True):
    fingerprint: str
    width: int
    data: bytes


def packed_version(version: VersionRecord) -> bytes:
    """The salt, if there is one, and the record: an element of `NamespaceKeys.versions`."""
    return ((version.salt or "") + version.record).encode()


def version_record(element: bytes) -> VersionRecord:
    """The inverse of `packed_version`. JSON begins with a brace, a salt does not."""
    text = element.decode("utf-8", "replace")
    if text.startswith("{"):
        return VersionRecord(salt=None, record=text)
    return VersionRecord(salt=text[:_SALT_CHARS], record=text[_SALT_CHARS:])


def record_bytes(element: bytes) -> bytes:
    """The record of an element of `NamespaceKeys.versions`, to the byte."""
    return element if element.startswith(b"{") else element[_SALT_CHARS:]


def edit_in(record: bytes | str) -> Edit:
    """The edit whose JSON this is, unchecked: for records that this process wrote or has checked."""
    return msgspec.json.decode(record, type=Edit)


def packed_vectors(vectors: FormVectors) -> bytes:
    """A value of `NamespaceKeys.vectors`."""
    return msgspec.msgpack.encode(
        _StoredVectors(
            fingerprint=vectors.fingerprint,
            width=vectors.vectors_FD.shape[1],
            data=vectors_to_bytes(vectors.vectors_FD),
        )
    )


def form_vectors(packed: bytes | None) -> FormVectors:
    """The inverse of `packed_vectors`; a purged edit has none.

    Raises:
        ValueError: They are torn.
    """
    if packed is None:
        return NO_VECTORS
    stored = msgspec.msgpack.decode(packed, type=_StoredVectors)
    return FormVectors(
        fingerprint=stored.fingerprint, vectors_FD=vectors_from_bytes(stored.data, stored.width)
    )


def log_evidence(log_id: bytes, fields: Mapping[bytes, bytes]) -> LogEvidence:
    """An entry of the log, damaged or not, without its version's record; version 0: it names none."""
    texts = {
        name.decode("utf-8", "replace"): text.decode("utf-8", "replace") for name, text in fields.items()
    }
    version = texts.get("version", "")
    return LogEvidence(
        log_id=log_id.decode(),
        action=texts.get("action", ""),
        edit_id=texts.get("edit_id", ""),
        version=int(version) if _VERSION.fullmatch(version) else 0,
        author=texts.get("author"),
        content_digest=texts.get("content", ""),
        previous_digest=texts.get("previous", ""),
        digest=texts.get("digest", ""),
        stored=None,
        approval=texts.get("approval"),
    )


def log_order_lines(lines: bytes) -> list[Committed]:
    """What log_order.lua returns, without entries that name no version of an edit."""
    words = (line.split(" ") for line in lines.decode("utf-8", "replace").split("\n"))
    return [
        Committed(edit_id=line[0], version=int(line[1]), log_id=line[2])
        for line in words
        if len(line) == 3 and _VERSION.fullmatch(line[1])
    ]


def log_head(namespace: str, stored: list[bytes | None]) -> LogHead:
    """The head out of its fields log_id, digest and length.

    Raises:
        DamagedRecordError: One of them is not what a commit writes.
    """
    log_id, digest, length = stored
    if log_id is None or digest is None or length is None:
        return empty_head(namespace)
    if not (_LOG_ID.fullmatch(log_id) and _DIGEST.fullmatch(digest) and _LENGTH.fullmatch(length)):
        raise DamagedRecordError(
            f"the head of the log of namespace {namespace!r} is damaged; `serac store repair` mends it",
            field="namespace",
            details={"value": namespace},
        )
    return LogHead(log_id=log_id.decode(), digest=digest.decode(), length=int(length))


def commit_keys(keys: NamespaceKeys, commit: Commit) -> list[str]:
    """The KEYS of commit.lua."""
    return [
        keys.current,
        keys.vectors,
        keys.log,
        keys.head,
        keys.result(commit.idempotency),
        keys.ids,
        keys.proposals,
        keys.proposed,
        keys.proposed_edits,
        keys.proposal_ids,
        keys.open_proposals,
        *(keys.ids_in(state) for state in _STATES),
        *(keys.versions(change.edit.id) for change in commit.changes),
    ]


def commit_arguments(
    namespace: str, commit: Commit, *, ttl_s: int, older: Mapping[str, list[Edit]]
) -> list[Word]:
    """The ARGV of commit.lua but for the last. `older` has the tombstones for each purged edit's versions."""
    arguments: list[Word] = [
        len(_STATES),
        0 if commit.idempotency is None else ttl_s,
        "" if commit.idempotency is None else salted_fingerprint(commit.idempotency),
        genesis(namespace),
        commit.expected_log_id or "",
        commit.approval or "",
        *closing_arguments(commit.closes),
        len(commit.changes),
    ]
    for change in commit.changes:
        arguments += _change_arguments(change, older.get(change.edit.id, []), commit.approval)
    return arguments


def closing_arguments(closing: Closing | None) -> tuple[Word, Word, Word]:
    """Id of the proposal ("" for none), revision that it must have, and the head that follows."""
    if closing is None:
        return "", "", ""
    return closing.proposal_id, closing.revision - 1, packed_head(closing)


def packed_head(closing: Closing) -> bytes:
    """A value of `NamespaceKeys.proposals`: revision and JSON, so that a script can read the former."""
    return b"%d %s" % (closing.revision, closing.head)


def committed(receipt: bytes) -> tuple[Committed, ...]:
    """The receipt that commit.lua wrote."""
    lines = [line.split(" ") for line in receipt.decode().split("\n")]
    return tuple(
        Committed(edit_id=edit_id, version=int(version), log_id=log_id) for edit_id, version, log_id in lines
    )


def _change_arguments(change: Change, older: list[Edit], approval: str | None) -> list[Word]:
    edit, version = change.edit, sealed(change.edit)
    fields = fields_digest(
        action=change.action,
        edit_id=edit.id,
        version=edit.version,
        content_digest=version.content_digest,
        author=edit.author,
        approval=approval,
    )
    return [
        change.action,
        edit.id,
        edit.version,
        version.salt or "",
        version.record,
        b"" if change.vectors is None else packed_vectors(change.vectors),
        _STATES.index(edit.state) + 1,
        edit.author or "",
        version.content_digest,
        fields,
        len(older),
        *(record_json(edit) for edit in older),
    ]


def salted_fingerprint(idempotency: Idempotency) -> str:
    """With the client's key, of which only a digest is stored, so that nobody can guess a body."""
    key = idempotency.key.encode("utf-8", "surrogatepass")
    return hmac.new(key, idempotency.fingerprint.encode(), hashlib.sha256).hexdigest()
