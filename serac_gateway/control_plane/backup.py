"""A namespace as one NDJSON stream, and back: every version, log entry and vector; no keys, no results.

    {"kind":"backup", …}   first: what it is
    {"kind":"entry", …}    each log entry with salt and record of its version, oldest first
    {"kind":"vectors", …}  of every edit that has any; if an edit has two, the last counts
    {"kind":"head", …}     last: where the log ends

The chain is bound to the namespace's name, so a backup is restored under the name that it was made of.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import msgspec

from serac_gateway.domain.edits import AwareDatetime, is_edit_id
from serac_gateway.domain.vectors import vectors_from_bytes, vectors_to_bytes
from serac_gateway.errors import InvalidRequestError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.log_chain import LogEvidence, LogHead
from serac_gateway.stores.log_verification import BrokenLogError, LogVerifier
from serac_gateway.stores.ports import NamespaceRestorer
from serac_gateway.stores.records import LOG_START, FormVectors

FORMAT = 1
MAX_LINE_BYTES = 4_194_304
"""Of a backup's line: a version with every field at its limit, or the vectors of 34 forms."""

_PAGE = 200


class BackupHeader(msgspec.Struct, frozen=True, kw_only=True, tag="backup", tag_field="kind"):
    """What a backup is of."""

    format: int
    namespace: str
    made_at: AwareDatetime


class BackupVectors(msgspec.Struct, frozen=True, kw_only=True, tag="vectors", tag_field="kind"):
    """The vectors of an edit's current version."""

    edit_id: str
    fingerprint: str
    width: int
    data: bytes
    """Base64 of `vectors_to_bytes`."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore wrote."""

    namespace: str
    log_entries: int
    log_digest: str
    """The digest that the log ends with, verified on the way."""


Piece = BackupHeader | LogEvidence | BackupVectors | LogHead


async def backup(store: EditStore, namespace: str) -> AsyncIterator[Piece]:
    """All of a namespace. A commit made meanwhile is in it as a whole, or comes after its head."""
    yield BackupHeader(format=FORMAT, namespace=namespace, made_at=datetime.now(UTC))
    after = LOG_START
    while True:
        head = await store.log_head(namespace)
        changed: dict[str, None] = {}
        while page := await store.evidence(namespace, after=after, limit=_PAGE):
            for entry in page:
                changed[entry.edit_id] = None
                yield entry
            after = page[-1].log_id
        if not changed:
            yield head
            return
        # Of the versions in this page or of later ones; the entries of those follow, and bring their vectors.
        ids = list(changed)
        for start in range(0, len(ids), _PAGE):
            for stored in await store.stored_many(namespace, ids[start : start + _PAGE]):
                if len(stored.vectors.vectors_FD):
                    yield _backup_vectors(stored.edit.id, stored.vectors)


async def restore(
    restorer: NamespaceRestorer, namespace: str, lines: AsyncIterator[bytes | None]
) -> Restored:
    """Write a backup's lines (None: one that is too long) into the namespace, and verify it on the way.

    Raises:
        InvalidRequestError: It is no backup of this namespace, is not whole, or its log is broken; nothing
            of it stays.
        EditConflictError: The namespace has edits.
        StoreUnavailableError: The store failed; repeat the restore.
    """
    await restorer.begin()
    try:
        head = await _written(restorer, namespace, lines)
    except BaseException:
        await restorer.abandon()
        raise
    await restorer.end(head)
    return Restored(namespace=namespace, log_entries=head.length, log_digest=head.digest)


async def _written(
    restorer: NamespaceRestorer, namespace: str, lines: AsyncIterator[bytes | None]
) -> LogHead:
    verifier = LogVerifier(namespace)
    batch: list[LogEvidence | BackupVectors] = []
    number, ended = 0, False
    async for line in lines:
        number += 1
        piece = _piece(line, number)
        if (number == 1) != isinstance(piece, BackupHeader) or ended:
            raise _bad_line(number, "it stands in the wrong place")
        if isinstance(piece, BackupHeader):
            _check_header(piece, namespace)
            continue
        if isinstance(piece, LogEvidence | LogHead):
            try:
                verifier.take(piece)
            except BrokenLogError as error:
                raise _bad_line(number, str(error)) from error
        if isinstance(piece, LogHead):
            ended = True
            continue
        if isinstance(piece, BackupVectors) and not verifier.version_of(piece.edit_id):
            raise _bad_line(number, f"edit {piece.edit_id!r} has vectors, and no entry before names it")
        batch.append(piece)
        if len(batch) == _PAGE:
            await _write(restorer, batch)
            batch = []
    await _write(restorer, batch)
    if not ended or verifier.head.length == 0:
        raise _bad_line(number, "the backup ends before its head, or is empty")
    return verifier.head


async def _write(restorer: NamespaceRestorer, batch: Sequence[LogEvidence | BackupVectors]) -> None:
    await restorer.entries([piece for piece in batch if isinstance(piece, LogEvidence)])
    await restorer.vectors(
        {piece.edit_id: _vectors(piece) for piece in batch if isinstance(piece, BackupVectors)}
    )


def _piece(line: bytes | None, number: int) -> Piece:
    if line is None:
        raise _bad_line(number, f"it is longer than {MAX_LINE_BYTES:,} bytes")
    try:
        piece: Piece = msgspec.json.decode(line, type=Piece)
    except (ValueError, RecursionError) as exc:
        raise _bad_line(number, str(exc)) from exc
    if isinstance(piece, LogEvidence | BackupVectors) and not is_edit_id(piece.edit_id):
        raise _bad_line(number, f"{piece.edit_id[:80]!r} is no edit id")
    return piece


def _check_header(header: BackupHeader, namespace: str) -> None:
    if header.format != FORMAT:
        raise _bad_line(1, f"it is of format {header.format}, and this gateway knows {FORMAT}")
    if header.namespace != namespace:
        raise InvalidRequestError(
            f"the backup is of namespace {header.namespace!r}, and its log is bound to that name; restore it"
            f" there, not into {namespace!r}",
            field="namespace",
            details={"value": namespace},
        )


def _bad_line(number: int, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"line {number} is not that of a whole backup: {why}", field="line", details={"value": number}
    )


def _backup_vectors(edit_id: str, vectors: FormVectors) -> BackupVectors:
    return BackupVectors(
        edit_id=edit_id,
        fingerprint=vectors.fingerprint,
        width=vectors.vectors_FD.shape[1],
        data=vectors_to_bytes(vectors.vectors_FD),
    )


def _vectors(piece: BackupVectors) -> FormVectors:
    try:
        vectors_FD = vectors_from_bytes(piece.data, piece.width)
    except ValueError as exc:
        raise InvalidRequestError(f"the vectors of edit {piece.edit_id!r} are torn: {exc}") from exc
    return FormVectors(fingerprint=piece.fingerprint, vectors_FD=vectors_FD)
