"""Writes a backup into a namespace that was never used, or nothing of it.

The whole file is read and checked before the first write: the chain of the log, the seal, that every record
is the one that its entry names, all rules of edits, and the vectors. It waits in an unnamed file meanwhile.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from serac_gateway.control_plane.backup import (
    FORMAT,
    MAX_LINE_BYTES,
    UNSEALED_FORMAT,
    BackupHead,
    BackupHeader,
    BackupVectors,
    Piece,
    sealed_head,
)
from serac_gateway.control_plane.backup_seal import Seal, backup_key_id
from serac_gateway.domain.edits import Edit, EditState, forms, is_edit_id, record_json, tombstone
from serac_gateway.domain.vectors import vectors_from_bytes
from serac_gateway.errors import InvalidRequestError, StoreUnavailableError
from serac_gateway.stores.checked_records import MAX_FINGERPRINT_CHARS, array_fault
from serac_gateway.stores.log_chain import LogEvidence, LogHead, VersionRecord
from serac_gateway.stores.log_verification import BrokenLogError, LogVerifier
from serac_gateway.stores.ports import NamespaceRestorer
from serac_gateway.stores.records import FormVectors

log = logging.getLogger(__name__)

_BATCH = 200
_BATCH_BYTES = 2_000_000
"""Lines are checked and written in batches of either size, on a thread: some 20 ms."""
_ROOM_CHECKED_EVERY_BYTES = 64_000_000
MAX_SPOOL_BYTES = 64_000_000_000
"""Of all lines together: ten million edits, and more than a namespace in memory can have."""
_LEAST_FREE_BYTES = 1_000_000_000
"""An upload ends when its volume has less left: a client must not fill it."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore wrote."""

    namespace: str
    log_entries: int
    log_digest: str
    """The digest that the log ends with, verified before anything was written."""
    sealed: bool
    """Whether the seal showed that a gateway with the key wrote the backup; false: an admin vouched."""


async def restore(
    restorer: NamespaceRestorer,
    namespace: str,
    lines: AsyncIterator[bytes | None],
    *,
    key: bytes,
    folder: Path,
    accept_unsealed: bool = False,
    widths: Mapping[str, int] | None = None,
) -> Restored:
    """Write a backup's lines (None: one that is too long) into the namespace.

    `key` must have sealed it, unless `accept_unsealed`. It waits in `folder` while it is read. `widths` has
    the width of the vectors of known encoders, by fingerprint.

    Raises:
        InvalidRequestError: It is no backup of this namespace, is not whole, not sealed, or holds something
            that no commit would have stored; nothing was written.
        EditConflictError: The namespace has edits.
        StoreUnavailableError: The store failed, or there is too little room; repeat the restore.
    """
    await restorer.check_unused()
    with _open_spool(folder) as spool:
        reading = _Reading(namespace, key=key, accept_unsealed=accept_unsealed, widths=widths or {})
        await _spool(spool, folder, lines, reading)
        head, sealed = await asyncio.to_thread(reading.end)
        await restorer.begin()
        try:
            await _write(restorer, spool, reading)
        except BaseException:
            await restorer.abandon()
            raise
        await restorer.end(head)
    return Restored(namespace=namespace, log_entries=head.length, log_digest=head.digest, sealed=sealed)


async def _spool(
    spool: IO[bytes], folder: Path, lines: AsyncIterator[bytes | None], reading: _Reading
) -> None:
    """Check every line as far as that can be done without those that follow, and write it to `spool`."""
    batch: list[bytes] = []
    size = written = checked_at = 0
    async for line in lines:
        if line is None:
            await asyncio.to_thread(reading.take, batch)
            raise bad_line(reading.lines + 1, f"it is longer than {MAX_LINE_BYTES:,} bytes")
        batch.append(line)
        size += len(line)
        if len(batch) < _BATCH and size < _BATCH_BYTES:
            continue
        if written - checked_at >= _ROOM_CHECKED_EVERY_BYTES:
            checked_at = written
            _check_room(folder)
        await asyncio.to_thread(_take, spool, reading, batch)
        written, size, batch = written + size, 0, []
        if written > MAX_SPOOL_BYTES:
            raise InvalidRequestError(
                f"the backup is longer than {MAX_SPOOL_BYTES:,} bytes, more than one is restored at a time",
                field="body",
                details={"limit": MAX_SPOOL_BYTES},
            )
    await asyncio.to_thread(_take, spool, reading, batch)


def _take(spool: IO[bytes], reading: _Reading, batch: Sequence[bytes]) -> None:
    reading.take(batch)
    try:
        spool.writelines(line + b"\n" for line in batch)
        spool.flush()
    except OSError as exc:
        raise StoreUnavailableError(
            f"the backup cannot be kept while it is checked: {(exc.strerror or str(exc)).lower()}; nothing"
            " was restored; make room and restore again"
        ) from exc


def _open_spool(folder: Path) -> IO[bytes]:
    """An unnamed file in the data folder, which is made anew where somebody has removed it.

    Raises:
        StoreUnavailableError: There can be none.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder)
    except OSError as exc:
        raise StoreUnavailableError(
            f"the data folder {str(folder)!r}, where a backup waits to be checked, cannot be written:"
            f" {(exc.strerror or str(exc)).lower()}; make it writable and restore again"
        ) from exc


def _check_room(folder: Path) -> None:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as exc:
        raise StoreUnavailableError(
            f"the data folder {str(folder)!r} is gone: {(exc.strerror or str(exc)).lower()}; nothing was"
            " restored"
        ) from exc
    if free < _LEAST_FREE_BYTES:
        raise StoreUnavailableError(
            f"the volume of {str(folder)!r}, where a backup waits to be checked, has {free:,} bytes left and"
            f" must keep {_LEAST_FREE_BYTES:,}; make room and restore again"
        )


async def _write(restorer: NamespaceRestorer, spool: IO[bytes], reading: _Reading) -> None:
    spool.seek(0)
    pieces = iter(reading.to_write(spool))
    while batch := await asyncio.to_thread(_next_batch, pieces):
        await restorer.entries([piece for piece in batch if isinstance(piece, LogEvidence)])
        await restorer.vectors(
            {piece.edit_id: _decoded(piece) for piece in batch if isinstance(piece, BackupVectors)}
        )


def _next_batch(pieces: Iterator[LogEvidence | BackupVectors]) -> list[LogEvidence | BackupVectors]:
    return [piece for _, piece in zip(range(_BATCH), pieces, strict=False)]


class _Expected(msgspec.Struct, kw_only=True):
    """What is known of one edit after the lines so far."""

    forms: int
    """Of its newest version; 0: it was purged."""
    vectors: int = 0
    """Of the last line with its vectors."""
    vectors_line: int = 0
    """The number of that line; 0: there was none."""


class _Reading:
    """The lines of a backup, checked one after the other. Keeps some numbers for each edit, no content."""

    def __init__(
        self, namespace: str, *, key: bytes, accept_unsealed: bool, widths: Mapping[str, int]
    ) -> None:
        self._namespace = namespace
        self._key = key
        self._accepts_unsealed = accept_unsealed
        self._widths = widths
        self._verifier = LogVerifier(namespace)
        self._seal = Seal(key)
        self._header: BackupHeader | None = None
        self._head: BackupHead | None = None
        self._edits: dict[str, _Expected] = {}
        self.lines = 0

    def take(self, lines: Sequence[bytes]) -> None:
        """Take the next lines.

        Raises:
            InvalidRequestError: One of them cannot be part of a whole backup of the namespace.
        """
        for line in lines:
            self.lines += 1
            self._take(line, _piece(line, self.lines))

    def end(self) -> tuple[LogHead, bool]:
        """The head, and whether the seal is right, once all lines were taken.

        Raises:
            InvalidRequestError: The backup is not whole, or is not sealed.
        """
        if self._header is None or self._head is None or not self._edits:
            raise bad_line(self.lines, "the backup ends before its head, or is empty")
        for edit_id, expected in self._edits.items():
            if expected.forms and expected.vectors_line and expected.vectors != expected.forms:
                raise bad_line(
                    expected.vectors_line,
                    f"edit {edit_id!r} has {expected.forms} forms and {expected.vectors} vectors",
                )
        return self._verifier.head, self._sealed(self._header, self._head)

    def to_write(self, spool: IO[bytes]) -> Iterator[LogEvidence | BackupVectors]:
        """What is to be written of the lines in `spool`, all of which were taken.

        An edit that was purged while the backup was made leaves tombstones and no vectors.
        """
        for number, line in enumerate(spool, 1):
            piece = _piece(line.rstrip(b"\n"), number)
            if isinstance(piece, LogEvidence):
                yield piece if self._edits[piece.edit_id].forms else _purged(piece)
            elif isinstance(piece, BackupVectors):
                expected = self._edits[piece.edit_id]
                if expected.forms and expected.vectors_line == number:
                    yield piece

    def _take(self, line: bytes, piece: Piece) -> None:
        if (self.lines == 1) != isinstance(piece, BackupHeader) or self._head is not None:
            raise bad_line(self.lines, "it stands in the wrong place")
        match piece:
            case BackupHeader():
                self._check_header(piece)
                self._header = piece
            case BackupHead():
                self._verify(LogHead(log_id=piece.log_id, digest=piece.digest, length=piece.length))
                self._head = piece
                return
            case LogEvidence():
                self._verify(piece)
                self._take_entry(piece)
            case BackupVectors():
                self._take_vectors(piece)
        self._seal.add(line)

    def _check_header(self, header: BackupHeader) -> None:
        if header.format not in (FORMAT, UNSEALED_FORMAT):
            raise bad_line(1, f"it is of format {header.format}, and this gateway knows up to {FORMAT}")
        if header.namespace != self._namespace:
            raise InvalidRequestError(
                f"the backup is of namespace {header.namespace[:80]!r}, and its log is bound to that name;"
                f" restore it there, not into {self._namespace!r}",
                field="namespace",
                details={"value": self._namespace},
            )

    def _verify(self, piece: LogEvidence | LogHead) -> None:
        try:
            self._verifier.take(piece)
        except BrokenLogError as error:
            raise bad_line(self.lines, str(error)) from error

    def _take_entry(self, entry: LogEvidence) -> None:
        assert entry.stored is not None  # the verifier has seen it
        edit = _edit_in(entry.stored)
        expected = self._edits.setdefault(entry.edit_id, _Expected(forms=0))
        expected.forms = 0 if edit.state is EditState.PURGED else len(forms(edit))

    def _take_vectors(self, piece: BackupVectors) -> None:
        expected = self._edits.get(piece.edit_id)
        if expected is None:
            raise bad_line(self.lines, f"edit {piece.edit_id!r} has vectors, and no entry before names it")
        if len(piece.fingerprint) > MAX_FINGERPRINT_CHARS:
            raise bad_line(self.lines, f"its fingerprint is longer than {MAX_FINGERPRINT_CHARS} characters")
        vectors_FD = _decoded(piece, self.lines).vectors_FD
        width = self._widths.get(piece.fingerprint, piece.width)
        if piece.width != width:
            raise bad_line(
                self.lines, f"its vectors have {piece.width} dimensions, and that encoder's have {width}"
            )
        if fault := array_fault(vectors_FD, len(vectors_FD)):
            raise bad_line(self.lines, f"edit {piece.edit_id!r}: {fault}")
        expected.vectors, expected.vectors_line = len(vectors_FD), self.lines

    def _sealed(self, header: BackupHeader, head: BackupHead) -> bool:
        self._seal.add(sealed_head(head))
        own_id = backup_key_id(self._key)
        if head.seal is None or header.key_id is None:
            fault = "the backup has no seal, so nothing shows who wrote it"
        elif header.key_id != own_id:
            fault = (
                f"the backup is sealed with another key ({header.key_id[:16]!r}, here {own_id!r}); set"
                " SERAC_BACKUP_KEY to the one it was made with"
            )
        elif not hmac.compare_digest(self._seal.hexdigest(), head.seal):
            fault = "the seal does not fit: the backup was changed after it was made"
        else:
            return True
        if not self._accepts_unsealed:
            raise InvalidRequestError(
                f"{fault}; an admin of every namespace who vouches for it may restore it with"
                " accept_unsealed",
                field="seal",
            )
        log.warning("namespace %s: restored all the same: %s", self._namespace, fault)
        return False


def bad_line(number: int, why: str) -> InvalidRequestError:
    """The error of a line that no whole backup has."""
    return InvalidRequestError(
        f"line {number} is not that of a whole backup: {why}", field="line", details={"value": number}
    )


def _piece(line: bytes, number: int) -> Piece:
    try:
        piece: Piece = msgspec.json.decode(line, type=Piece)
    except (ValueError, RecursionError) as exc:
        raise bad_line(number, str(exc)) from exc
    if isinstance(piece, LogEvidence | BackupVectors) and not is_edit_id(piece.edit_id):
        raise bad_line(number, f"{piece.edit_id[:80]!r} is no edit id")
    return piece


def _decoded(piece: BackupVectors, number: int = 0) -> FormVectors:
    try:
        vectors_FD = vectors_from_bytes(piece.data, piece.width)
    except ValueError as exc:
        raise bad_line(number, f"the vectors of edit {piece.edit_id!r} are torn: {exc}") from exc
    return FormVectors(fingerprint=piece.fingerprint, vectors_FD=vectors_FD)


def _edit_in(stored: VersionRecord) -> Edit:
    return msgspec.json.decode(stored.record, type=Edit)


def _purged(entry: LogEvidence) -> LogEvidence:
    """The entry of an edit that was purged later, without the content that it had before."""
    assert entry.stored is not None
    edit = _edit_in(entry.stored)
    if edit.state is EditState.PURGED:
        return entry
    record = record_json(tombstone(edit)).decode()
    return msgspec.structs.replace(entry, stored=VersionRecord(salt=None, record=record))
