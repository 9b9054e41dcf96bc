"""A namespace as one NDJSON stream: every version, log entry and vector; no keys, no results.

    {"kind":"backup", …}   first: what it is, and the key of its seal
    {"kind":"entry", …}    each log entry with salt and record of its version, oldest first
    {"kind":"vectors", …}  of every edit that has any; if an edit has two, the last counts
    {"kind":"head", …}     last: where the log ends, and the seal (backup_seal.py)

The chain is bound to the namespace's name, so a backup is restored under the name that it was made of.
restore.py reads it. Format 1 had no seal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec

from serac_gateway.control_plane.backup_seal import Seal, backup_key_id
from serac_gateway.domain.edits import AwareDatetime, is_edit_id
from serac_gateway.domain.vectors import vectors_to_bytes
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.log_chain import LogEvidence, LogHead
from serac_gateway.stores.records import LOG_START, FormVectors

FORMAT = 2
UNSEALED_FORMAT = 1
MAX_LINE_BYTES = 8_388_608
"""Of a backup's line: a version with every field at its limit, or the vectors of 234 forms."""

_PAGE = 200


class BackupHeader(msgspec.Struct, frozen=True, kw_only=True, tag="backup", tag_field="kind"):
    """What a backup is of."""

    format: int
    namespace: str
    made_at: AwareDatetime
    key_id: str | None = None
    """Identifies the key of the seal; None: there is no seal."""


class BackupVectors(msgspec.Struct, frozen=True, kw_only=True, tag="vectors", tag_field="kind"):
    """The vectors of an edit's current version."""

    edit_id: str
    fingerprint: str
    width: int
    data: bytes
    """Base64 of `vectors_to_bytes`."""


class BackupHead(LogHead, frozen=True, kw_only=True, tag="head", tag_field="kind"):
    """Where the log ends."""

    seal: str | None = None
    """`Seal.hexdigest` of all lines before and of `sealed_head`; None: there is no seal."""


Piece = BackupHeader | LogEvidence | BackupVectors | BackupHead


async def backup(store: EditStore, namespace: str, key: bytes) -> AsyncIterator[bytes]:
    """All of a namespace, a line at a time without its end, sealed with `key`.

    A commit made meanwhile is in it as a whole, or comes after its head.
    """
    seal = Seal(key)
    async for piece in _pieces(store, namespace, backup_key_id(key)):
        if isinstance(piece, LogHead):
            seal.add(sealed_head(piece))
            yield msgspec.json.encode(
                BackupHead(**msgspec.structs.asdict(piece), seal=seal.hexdigest())
            )  # fmt: skip
            return
        line = msgspec.json.encode(piece)
        seal.add(line)
        yield line


def sealed_head(head: LogHead) -> bytes:
    """What the seal covers of the last line, which holds the seal itself."""
    return f"{head.log_id} {head.digest} {head.length}".encode()


async def _pieces(
    store: EditStore, namespace: str, key_id: str
) -> AsyncIterator[BackupHeader | LogEvidence | BackupVectors | LogHead]:
    yield BackupHeader(format=FORMAT, namespace=namespace, made_at=datetime.now(UTC), key_id=key_id)
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
        ids = [edit_id for edit_id in changed if is_edit_id(edit_id)]
        for start in range(0, len(ids), _PAGE):
            for stored in await store.stored_many(
                namespace, ids[start : start + _PAGE], on_damaged=lambda record: None
            ):
                if len(stored.vectors.vectors_FD):
                    yield _backup_vectors(stored.edit.id, stored.vectors)


def _backup_vectors(edit_id: str, vectors: FormVectors) -> BackupVectors:
    return BackupVectors(
        edit_id=edit_id,
        fingerprint=vectors.fingerprint,
        width=vectors.vectors_FD.shape[1],
        data=vectors_to_bytes(vectors.vectors_FD),
    )
