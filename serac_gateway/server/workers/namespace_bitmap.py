"""The namespaces whose requests have to be decided on, in memory shared by the model process and its workers.

A call to the model process for every request of a namespace without edits would cost more than passing the
request on. So there is a table of one byte a slot, and a namespace's slot is a hash of its name: 0 says that
no namespace of the slot needs decisions, and 2 that one of them has suppressions. The table is written before
an edit's reply, so no worker misses an acknowledged edit. Two namespaces in one slot cost needless calls; and
beside one with suppressions a request that a worker itself cannot read or have decided is refused.
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
"""The position of the byte that says whether all edits are loaded."""
_DECIDED, _WITH_SUPPRESSIONS = 1, 2
_MEANINGS = (NeedsDecision.NONE, NeedsDecision.SOME, NeedsDecision.SUPPRESSIONS)
"""By the value of a slot."""
MAX_VALUE = _WITH_SUPPRESSIONS
TABLE_BYTES = mmap.PAGESIZE * (_SLOTS // mmap.PAGESIZE + 1)
"""The size of its memory."""


class NamespaceBitmap:
    """The table. One process writes it, any number read it."""

    def __init__(self, memory: mmap.mmap) -> None:
        """Of `TABLE_BYTES`; all zero: not loaded. `create` and `open` map a file."""
        self._memory = memory

    @classmethod
    def create(cls, path: Path) -> NamespaceBitmap:
        """Make the file, in the state "not loaded"."""
        path.write_bytes(bytes(TABLE_BYTES))
        return cls._mapped(path, mmap.ACCESS_WRITE)

    @classmethod
    def open(cls, path: Path) -> NamespaceBitmap:
        """Map the file of another process for reading; `mark` and `write` raise TypeError."""
        return cls._mapped(path, mmap.ACCESS_READ)

    @classmethod
    def _mapped(cls, path: Path, access: int) -> NamespaceBitmap:
        with path.open("r+b" if access == mmap.ACCESS_WRITE else "rb") as file:
            return cls(mmap.mmap(file.fileno(), TABLE_BYTES, access=access))

    def needs_decision(self, namespace: str) -> NeedsDecision:
        """See `Engine.needs_decision`. Namespaces share slots: it may say too much, and never too little."""
        if not self._memory[_LOADED]:
            return NeedsDecision.UNKNOWN
        return _MEANINGS[self._memory[_slot(namespace)]]

    def close(self) -> None:
        """Unmap the file. Idempotent."""
        self._memory.close()

    def mark(self, namespace: str, *, suppressions: bool = False) -> None:
        """The namespace needs decisions; it may have suppressions."""
        slot = _slot(namespace)
        self._memory[slot] = max(self._memory[slot], _WITH_SUPPRESSIONS if suppressions else _DECIDED)

    def write(
        self, namespaces: Iterable[str], *, suppressed: Iterable[str] = (), every: bool = False
    ) -> None:
        """All edits are loaded; only `namespaces` need decisions, or with `every` all namespaces do.

        Those in `suppressed` have suppressions.
        """
        slots = bytearray([_DECIDED] * _SLOTS if every else _SLOTS)
        for namespace in namespaces:
            slots[_slot(namespace)] = _DECIDED
        for namespace in suppressed:
            slots[_slot(namespace)] = _WITH_SUPPRESSIONS
        self._memory[:_SLOTS] = bytes(slots)
        self._memory[_LOADED] = 1


class NamespaceBitmapWriter:
    """Keeps the table up to date with the active edits. Belongs to the event loop of the model process."""

    def __init__(
        self, bitmap: NamespaceBitmap, active_edits: ActiveEdits, recorded: Callable[[], Collection[str]]
    ) -> None:
        """`recorded` returns the namespaces whose traffic is recorded; "*" stands for all."""
        self._bitmap = bitmap
        self._active_edits = active_edits
        self._recorded = recorded
        active_edits.on_changed = self.note
        self.note(None)

    def note(self, namespace: str | None) -> None:
        """The edits of `namespace` may have changed; None: those of any, or the recorded namespaces."""
        if not self._active_edits.loaded:
            return
        if namespace is not None:
            suppressed = self._may_suppress(namespace)
            before = self._bitmap.needs_decision(namespace)
            if (suppressed or self._active_edits.count(namespace)) and (
                suppressed or before is not NeedsDecision.SUPPRESSIONS
            ):
                self._bitmap.mark(namespace, suppressions=suppressed)
                return
            if before is NeedsDecision.NONE:
                return
        recorded = self._recorded()
        names = self._active_edits.positions().keys() | self._active_edits.quarantine.all().keys()
        edited = [name for name in names if self._active_edits.count(name)]
        suppressed_names = [name for name in names if self._may_suppress(name)]
        self._bitmap.write(
            [*edited, *recorded], suppressed=suppressed_names, every=EVERY_NAMESPACE in recorded
        )

    def _may_suppress(self, namespace: str) -> bool:
        """Whether it has suppressions, or is quarantined and may have some."""
        return namespace in self._active_edits.quarantine or bool(self._active_edits.suppressions(namespace))


def _slot(namespace: str) -> int:
    return zlib.crc32(namespace.encode()) % _SLOTS
