"""Makes stored vectors anew with the encoder in use, while the gateway serves.

Every stored vector names its encoder, and no process compares vectors of two: what another encoder made is
encoded anew in memory when it is read. So edits can be done one group after the other, each in one step, with
gateways of either encoder beside it, and a run that was broken off goes on where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import msgspec

from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import Edit, EditState
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import StoredEdit

_PAGE = 200
_GROUP = 16
"""Edits that are encoded, and then written, together: some 50 ms of a thread."""


class Reencoded(msgspec.Struct, frozen=True, kw_only=True):
    """How far it is."""

    encoder: str
    """Its fingerprint."""
    edits: int
    """Looked at."""
    reencoded: int
    """Those of them whose vectors were another encoder's."""
    complete: bool
    """No edit has vectors of another encoder, but for what gateways that still use one wrote meanwhile."""


async def reencode(writer: EditWriter, store: EditStore, namespace: str) -> AsyncIterator[Reencoded]:
    """Encode anew the vectors of other encoders, and yield the progress; `complete` comes last.

    It rests for as long as it works, so that requests are decided beside it. Repeat one that was broken off.

    Raises:
        StoreUnavailableError, ModelUnavailableError: The progress reported until then is durable.
    """
    looked_at = made = 0
    cursor: str | None = None
    while True:
        page = await store.page(namespace, cursor=cursor, limit=_PAGE)
        foreign = await _foreign(writer, store, namespace, page.edits)
        for start in range(0, len(foreign), _GROUP):
            begun_s = time.monotonic()
            made += await _replaced(writer, store, namespace, foreign[start : start + _GROUP])
            await asyncio.sleep(time.monotonic() - begun_s)
        looked_at += len(page.edits)
        cursor = page.next_cursor
        yield Reencoded(
            encoder=writer.encoder_fingerprint, edits=looked_at, reencoded=made, complete=cursor is None
        )
        if cursor is None:
            return


async def _foreign(writer: EditWriter, store: EditStore, namespace: str, edits: Sequence[Edit]) -> list[Edit]:
    """The current versions of those whose vectors are another encoder's."""
    ids = [edit.id for edit in edits if edit.state is not EditState.PURGED]
    return [
        stored.edit
        for stored in await store.stored_many(namespace, ids)
        if stored.edit.state is not EditState.PURGED
        and stored.vectors.fingerprint != writer.encoder_fingerprint
    ]


async def _replaced(writer: EditWriter, store: EditStore, namespace: str, edits: list[Edit]) -> int:
    vectors = await writer.vectors(edits)
    # An edit that has changed meanwhile is left alone: its new version came with vectors.
    return await store.replace_vectors(
        namespace,
        [StoredEdit(edit=edit, vectors=one) for edit, one in zip(edits, vectors, strict=True)],
    )
