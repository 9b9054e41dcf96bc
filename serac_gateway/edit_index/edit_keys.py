"""Which edit each row of an index belongs to, and until which write the row counts.

Each put of an edit has a key, and rows carry keys. A write that replaces or removes an edit notes at the key
the number of that write; a search holds the number of the state it began with, so it sees each write wholly
or not at all, and no write copies what is known of other edits. A key is used again once its rows have left
the index and no search that could still meet them runs: a search holds the state's epoch, an epoch holds the
ones after it, and the keys that left with it return when it is freed.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_COUNTS = np.iinfo(np.int64).max
_FIRST_KEYS = 16


class Epoch:
    """Of states among which no keys left the index."""

    __slots__ = ("__weakref__", "after")

    def __init__(self) -> None:
        self.after: Epoch | None = None


class EditKeys:
    """The keys of one index. Written by one thread at a time; `edit_ids` and `died_at_K` are read by any."""

    def __init__(self) -> None:
        self.edit_ids: list[str] = []
        """By key."""
        self.died_at_K: NDArray[np.int64] = np.full(_FIRST_KEYS, _COUNTS)
        """The number of the write from which on rows of the key no longer count. Never written twice, so an
        older array, which does not grow, is right for older states."""
        self.epoch = Epoch()
        self._key_of: dict[str, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        """How many edits there are."""
        return len(self._key_of)

    def __contains__(self, edit_id: str) -> bool:
        """Whether the edit is there."""
        return edit_id in self._key_of

    def put(self, edit_id: str, write: int) -> int:
        """A new key for the edit; an older one's rows do not count from `write` on."""
        self.remove(edit_id, write)
        if self._free:
            key = self._free.pop()
            self.edit_ids[key] = edit_id
        else:
            key = len(self.edit_ids)
            self.edit_ids.append(edit_id)
            if key == len(self.died_at_K):
                self.died_at_K = np.concatenate([self.died_at_K, np.full(key, _COUNTS)])
        self.died_at_K[key] = _COUNTS
        self._key_of[edit_id] = key
        return key

    def remove(self, edit_id: str, write: int) -> bool:
        """Let the edit's rows not count from `write` on; false if it is not there."""
        key = self._key_of.pop(edit_id, None)
        if key is not None:
            self.died_at_K[key] = write
        return key is not None

    def are_dead(self, keys: NDArray[np.int64], write: int) -> NDArray[np.bool_]:
        """Which of the keys count no longer in the state after `write`."""
        return self.died_at_K[keys] <= write

    def release(self, keys: Iterable[int]) -> None:
        """Rows of the dead `keys` are in no state from the next one on, which must hold the new `epoch`."""
        released = list(keys)
        if not released:
            return
        ended, self.epoch = self.epoch, Epoch()
        ended.after = self.epoch
        weakref.finalize(ended, self._free.extend, released).atexit = False
