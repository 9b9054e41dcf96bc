"""The table of namespaces that need decisions, kept the same in the gateways of an engine.

The engine streams the table and every change of it. Each of its replies names the version that was current
when it was made; who must not miss an edit that was acknowledged before waits for that version.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import AsyncIterator, Callable, Collection

import numpy as np
from typing_extensions import override

from serac_gateway.data_plane.engine import NeedsDecision
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.server.engines.messages import TableFrame
from serac_gateway.server.workers.namespace_bitmap import (
    MAX_VALUE,
    TABLE_BYTES,
    NamespaceBitmap,
    NamespaceBitmapWriter,
)

_SIGN_OF_LIFE_S = 1.0


class NamespaceFeed:
    """The engine's side: follows the active edits. Belongs to one event loop; one a process."""

    def __init__(self, active_edits: ActiveEdits, recorded: Callable[[], Collection[str]]) -> None:
        """`recorded` returns the namespaces whose traffic is recorded; "*" stands for all."""
        self._memory = mmap.mmap(-1, TABLE_BYTES)
        self._current = bytes(TABLE_BYTES)
        self.version = 1
        self._changed = asyncio.Event()
        self._is_closed = False
        self._streams = 0
        self._writer = _ReportingWriter(self._take, NamespaceBitmap(self._memory), active_edits, recorded)

    def note_recorded(self) -> None:
        """Other namespaces may be recorded now."""
        self._writer.note(None)

    async def frames(self) -> AsyncIterator[TableFrame]:
        """The whole table, then each change, and every second at least an empty frame, until ended."""
        sent: bytes | None = None
        streams = self._streams
        while not self._is_closed and streams == self._streams:
            changed, current, version = self._changed, self._current, self.version
            if sent is None:
                yield TableFrame(version=version, table=current)
            elif sent is current:
                yield TableFrame(version=version)
            else:
                yield TableFrame(version=version, changes=_changes(sent, current))
            sent = current
            try:
                async with asyncio.timeout(_SIGN_OF_LIFE_S):
                    await changed.wait()
            except TimeoutError:
                continue

    def end_streams(self) -> None:
        """End those that run: the gateways connect again, and learn what the engine is now."""
        self._streams += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """End all streams, and those that begin later at once."""
        self._is_closed = True
        self._changed.set()

    def _take(self) -> None:
        current = self._memory[:TABLE_BYTES]
        if current != self._current:
            self._current = current
            self.version += 1
            self._changed.set()
            self._changed = asyncio.Event()


class _ReportingWriter(NamespaceBitmapWriter):
    def __init__(
        self,
        on_noted: Callable[[], None],
        bitmap: NamespaceBitmap,
        active_edits: ActiveEdits,
        recorded: Callable[[], Collection[str]],
    ) -> None:
        self._on_noted = on_noted
        super().__init__(bitmap, active_edits, recorded)

    @override
    def note(self, namespace: str | None) -> None:
        super().note(namespace)
        self._on_noted()


class FedNamespaces:
    """The gateway's side: a copy of the engine's table. Belongs to one event loop."""

    def __init__(self) -> None:
        """Without a table: of no namespace it is known whether it needs decisions."""
        self._memory = mmap.mmap(-1, TABLE_BYTES)
        self._bitmap = NamespaceBitmap(self._memory)
        self._version = 0
        self._changed = asyncio.Event()

    def needs_decision(self, namespace: str) -> NeedsDecision:
        """See `Engine.needs_decision`; while the engine is away as it was last."""
        return self._bitmap.needs_decision(namespace)

    def apply(self, frame: TableFrame) -> None:
        """Take over a frame.

        Raises:
            ValueError: It is for another table.
        """
        if frame.table is not None:
            if len(frame.table) != TABLE_BYTES or max(frame.table) > MAX_VALUE:
                raise ValueError(f"a table of {len(frame.table)} bytes that is none of ours")
            self._memory[:TABLE_BYTES] = frame.table
        for place, value in frame.changes:
            if not (0 <= place < TABLE_BYTES and 0 <= value <= MAX_VALUE):
                raise ValueError(f"value {value} in place {place} of a table of {TABLE_BYTES} bytes")
            self._memory[place] = value
        if frame.version != self._version:
            self._version = frame.version
            self._changed.set()
            self._changed = asyncio.Event()

    async def reached(self, version: int, *, timeout_s: float) -> None:
        """Return when the table is at least of that version.

        Raises:
            TimeoutError: It is not after `timeout_s` seconds.
        """
        if self._version >= version:
            return
        async with asyncio.timeout(timeout_s):
            while self._version < version:
                await self._changed.wait()


def _changes(before: bytes, after: bytes) -> list[tuple[int, int]]:
    old, new = np.frombuffer(before, np.uint8), np.frombuffer(after, np.uint8)
    places = np.flatnonzero(old != new)
    return list(zip(places.tolist(), new[places].tolist(), strict=True))
