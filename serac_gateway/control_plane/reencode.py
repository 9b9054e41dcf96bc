"""Encodes stored edits anew with the encoder in use, while the gateway serves.

Every stored vector names its encoder, and no process compares vectors of two encoders: edits with vectors of
another encoder are encoded in memory when they are read. So a group of edits at a time can be replaced, each
group in one step, beside gateways with either encoder; an interrupted run continues where it ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import msgspec

from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import Edit, EditState
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.checked_records import DamagedRecord
from serac_gateway.stores.records import StoredEdit

_PAGE = 200
_GROUP = 16
"""Edits that are encoded, and then written, together: some 50 ms of a thread."""


class ReencodeProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the run has come."""

    encoder: str
    """Its fingerprint."""
    edits: int
    """Edits read so far."""
    reencoded: int
    """Edits among them whose vectors were replaced."""
    complete: bool
    """No edit has vectors of another encoder, but for what gateways that still use one wrote meanwhile."""


async def reencode(writer: EditWriter, store: EditStore, namespace: str) -> AsyncIterator[ReencodeProgress]:
    """Encode anew the vectors of other encoders, and yield the progress; `complete` comes last.

    It pauses as long as it works, so that half of the pool stays free for requests. An interrupted run may be
    repeated.

    Raises:
        StoreUnavailableError, ModelUnavailableError: The progress reported until then is durable.
    """
    read = made = 0
    cursor: str | None = None
    while True:
        page = await store.page(namespace, cursor=cursor, limit=_PAGE, on_damaged=_leave)
        foreign = await _foreign(writer, store, namespace, page.edits)
        for start in range(0, len(foreign), _GROUP):
            begun_s = time.monotonic()
            made += await _replace_vectors(writer, store, namespace, foreign[start : start + _GROUP])
            await asyncio.sleep(time.monotonic() - begun_s)
        read += len(page.edits)
        cursor = page.next_cursor
        yield ReencodeProgress(
            encoder=writer.encoder_fingerprint, edits=read, reencoded=made, complete=cursor is None
        )
        if cursor is None:
            return


async def _foreign(writer: EditWriter, store: EditStore, namespace: str, edits: Sequence[Edit]) -> list[Edit]:
    """The current versions of those whose vectors are another encoder's."""
    ids = [edit.id for edit in edits if edit.state is not EditState.PURGED]
    return [
        stored.edit
        for stored in await store.stored_many(namespace, ids, on_damaged=_leave)
        if stored.edit.state is not EditState.PURGED
        and stored.vectors.fingerprint != writer.encoder_fingerprint
    ]


async def _replace_vectors(writer: EditWriter, store: EditStore, namespace: str, edits: list[Edit]) -> int:
    vectors = await writer.vectors(edits)
    # The store skips an edit that has changed meanwhile: its new version has its own vectors.
    return await store.replace_vectors(
        namespace,
        [StoredEdit(edit=edit, vectors=made) for edit, made in zip(edits, vectors, strict=True)],
    )


def _leave(record: DamagedRecord) -> None:
    """A damaged record is left to `serac store repair`; torn vectors are made anew here as well."""
