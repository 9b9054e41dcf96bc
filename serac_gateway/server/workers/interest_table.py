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

from serac_gateway.data_plane.engine import Concern
from serac_gateway.edit_index.active_edits import LiveEdits
from serac_gateway.stores.traffic_recorder import EVERY_NAMESPACE

_SLOTS = 65_536
_LOADED = _SLOTS
"""The byte that tells whether all edits are loaded."""
_SIZE = mmap.PAGESIZE * (_SLOTS // mmap.PAGESIZE + 1)


class InterestTable:
    """The table; one process writes it, any number read it."""

    def __init__(self, memory: mmap.mmap) -> None:
        """Use `create` or `open`."""
        self._memory = memory

    @classmethod
    def create(cls, path: Path) -> InterestTable:
        """Make the file, empty: nothing is loaded."""
        path.write_bytes(bytes(_SIZE))
        return cls._mapped(path, mmap.ACCESS_WRITE)

    @classmethod
    def open(cls, path: Path) -> InterestTable:
        """Read what another process made."""
        return cls._mapped(path, mmap.ACCESS_READ)

    @classmethod
    def _mapped(cls, path: Path, access: int) -> InterestTable:
        with path.open("r+b" if access == mmap.ACCESS_WRITE else "rb") as file:
            return cls(mmap.mmap(file.fileno(), _SIZE, access=access))

    def concern(self, namespace: str) -> Concern:
        """See `Deciding.concern`; SOME may be said of a namespace that has no edits, never the reverse."""
        if not self._memory[_LOADED]:
            return Concern.UNKNOWN
        return Concern.SOME if self._memory[_slot(namespace)] else Concern.NONE

    def close(self) -> None:
        """Let go of the memory. Idempotent."""
        self._memory.close()

    def mark(self, namespace: str) -> None:
        """The namespace is of concern."""
        self._memory[_slot(namespace)] = 1

    def write(self, namespaces: Iterable[str], *, all_of_them: bool = False) -> None:
        """All edits are loaded, and of concern are `namespaces` and no others, or `all_of_them`."""
        slots = bytearray(b"\1" * _SLOTS if all_of_them else _SLOTS)
        for namespace in namespaces:
            slots[_slot(namespace)] = 1
        self._memory[:_SLOTS] = bytes(slots)
        self._memory[_LOADED] = 1


class InterestWriter:
    """Keeps the table true to the edits in force. Belongs to the event loop of the model process."""

    def __init__(
        self, table: InterestTable, live_edits: LiveEdits, recorded: Callable[[], Collection[str]]
    ) -> None:
        """`recorded` gives the namespaces whose traffic is recorded; "*": all."""
        self._table = table
        self._live_edits = live_edits
        self._recorded = recorded
        live_edits.on_changed = self.note
        self.note(None)

    def note(self, namespace: str | None) -> None:
        """The edits of `namespace`, None: anything, may have changed."""
        if not self._live_edits.loaded:
            return
        if namespace is not None:
            if self._live_edits.count(namespace):
                self._table.mark(namespace)
                return
            if self._table.concern(namespace) is Concern.NONE:
                return
        recorded = self._recorded()
        concerned = [one for one in self._live_edits.positions() if self._live_edits.count(one)]
        self._table.write([*concerned, *recorded], all_of_them=EVERY_NAMESPACE in recorded)


def _slot(namespace: str) -> int:
    return zlib.crc32(namespace.encode()) % _SLOTS
