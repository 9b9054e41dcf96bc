"""Which namespaces have to be decided on, in memory that the model process and its workers share.

Asking the model process for every request of a namespace without edits would cost more than passing it on. So
there is a table of one byte a slot, a namespace's slot being a hash of its name: 0 says that no namespace of
the slot has edits. It is written before an edit's reply, so no worker misses an edit that was acknowledged;
two namespaces in one slot cost a question in vain and nothing else.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from serac_gateway.data_plane.engine import NeedsDecision
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.stores.traffic_recorder import EVERY_NAMESPACE

_SLOTS = 65_536
_LOADED = _SLOTS
"""The byte that tells whether all edits are loaded."""
_SIZE = mmap.PAGESIZE * (_SLOTS // mmap.PAGESIZE + 1)


class NamespaceBitmap:
    """The table; one process writes it, any number read it."""

    def __init__(self, memory: mmap.mmap) -> None:
        """Use `create` or `open`."""
        self._memory = memory

    @classmethod
    def create(cls, path: Path) -> NamespaceBitmap:
        """Make the file, empty: nothing is loaded."""
        path.write_bytes(bytes(_SIZE))
        return cls._mapped(path, mmap.ACCESS_WRITE)

    @classmethod
    def open(cls, path: Path) -> NamespaceBitmap:
        """Read what another process made."""
        return cls._mapped(path, mmap.ACCESS_READ)

    @classmethod
    def _mapped(cls, path: Path, access: int) -> NamespaceBitmap:
        with path.open("r+b" if access == mmap.ACCESS_WRITE else "rb") as file:
            return cls(mmap.mmap(file.fileno(), _SIZE, access=access))

    def needs_decision(self, namespace: str) -> NeedsDecision:
        """See `Deciding.needs_decision`. SOME may be said of a namespace without edits, never the reverse."""
        if not self._memory[_LOADED]:
            return NeedsDecision.UNKNOWN
        return NeedsDecision.SOME if self._memory[_slot(namespace)] else NeedsDecision.NONE

    def close(self) -> None:
        """Let go of the memory. Idempotent."""
        self._memory.close()

    def mark(self, namespace: str) -> None:
        """The namespace needs decisions."""
        self._memory[_slot(namespace)] = 1

    def write(self, namespaces: Iterable[str], *, all_of_them: bool = False) -> None:
        """All edits are loaded; `namespaces` and no others need decisions, or `all_of_them` do."""
        slots = bytearray(b"\1" * _SLOTS if all_of_them else _SLOTS)
        for namespace in namespaces:
            slots[_slot(namespace)] = 1
        self._memory[:_SLOTS] = bytes(slots)
        self._memory[_LOADED] = 1


class NamespaceBitmapWriter:
    """Keeps the table true to the edits in force. Belongs to the event loop of the model process."""

    def __init__(
        self, table: NamespaceBitmap, active_edits: ActiveEdits, recorded: Callable[[], Collection[str]]
    ) -> None:
        """`recorded` gives the namespaces whose traffic is recorded; "*": all."""
        self._table = table
        self._live_edits = active_edits
        self._recorded = recorded
        active_edits.on_changed = self.note
        self.note(None)

    def note(self, namespace: str | None) -> None:
        """The edits of `namespace`, None: anything, may have changed."""
        if not self._live_edits.loaded:
            return
        if namespace is not None:
            if self._live_edits.count(namespace):
                self._table.mark(namespace)
                return
            if self._table.needs_decision(namespace) is NeedsDecision.NONE:
                return
        recorded = self._recorded()
        concerned = [one for one in self._live_edits.positions() if self._live_edits.count(one)]
        self._table.write([*concerned, *recorded], all_of_them=EVERY_NAMESPACE in recorded)


def _slot(namespace: str) -> int:
    return zlib.crc32(namespace.encode()) % _SLOTS
