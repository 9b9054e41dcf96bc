"""Exact search over immutable segments, swapped by reference.

A write never touches what a running search reads: it builds new segments and puts a new `State` in place
with one assignment. Small segments are merged as they come, larger ones geometrically up to a limit, so there
are few of them and a row is copied O(log rows) times (the log-structured merge tree: O'Neil et al., 1996).
The limit bounds what a merge needs besides what is there. Replaced and removed edits leave dead rows behind,
which merges drop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import faiss
import msgspec
import numpy as np
from numpy.typing import NDArray

from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.base import EditIndex, Neighbour
from serac_gateway.edit_index.edit_keys import EditKeys, Epoch
from serac_gateway.edit_index.fp16_rows import Fp16Rows
from serac_gateway.edit_index.ivf import MAX_FORMS, IvfSegment, NearestRows, Rows

_SMALL_ROWS = 1_024
"""Segments below this are merged at once: copying 1.5 MB costs 0.2 ms."""
_LARGEST_ROWS = 32_768
"""Of a segment that is merged from others: 50 MB at 384 dimensions, and a merge holds three times as much. An
exact search reads every row, however many segments they lie in; each adds some 20 µs."""
_FP16_ROWS = 4_096
"""From here on a segment's rows are read in half precision first; below, reading them takes .1 ms."""
_OVERFETCH = 4
"""Rows fetched for each edit wanted, at first: an edit has several forms."""


class FlatRows(Protocol):
    """Rows that are searched exactly, wherever they lie."""

    ntotal: int

    def search(self, x: Vectors, k: int, /) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Similarities and rows, best first. *Shape:* (B, k) each."""

    def reconstruct_n(self, n0: int, ni: int, /) -> Vectors:
        """Rows `n0` to `n0 + ni`."""


class PlainRows:
    """Rows in main memory as they are, without a faiss object: a small namespace has a kilobyte of these."""

    __slots__ = ("_rows_RD", "ntotal")

    def __init__(self, rows_RD: Vectors) -> None:
        """Keep `rows_RD`, contiguous, as they are."""
        self._rows_RD = rows_RD
        self.ntotal = len(rows_RD)

    def search(self, x: Vectors, k: int, /) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `FlatRows.search`."""
        similarities_BK, rows_BK = faiss.knn(x, self._rows_RD, k, faiss.METRIC_INNER_PRODUCT)
        return similarities_BK, rows_BK

    def reconstruct_n(self, n0: int, ni: int, /) -> Vectors:
        """See `FlatRows.reconstruct_n`."""
        return self._rows_RD[n0 : n0 + ni]


class FlatSegment(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Rows that are searched exactly. All rows of a put lie in one segment."""

    flat: FlatRows
    key_R: NDArray[np.int64]
    form_R: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """How many rows there are, those that count no longer included."""
        return len(self.key_R)

    def search(self, queries_BD: Vectors, queries: slice, fetched: int) -> NearestRows:
        """The `fetched` rows nearest to each of those queries; there must be as many."""
        similarities_BK, rows_BK = self.flat.search(queries_BD[queries], fetched)
        return NearestRows(
            similarities_BK=similarities_BK, key_BK=self.key_R[rows_BK], form_BK=self.form_R[rows_BK]
        )

    def live_rows(self, keys: EditKeys, write: int) -> Rows:
        """The rows that count after `write`."""
        live_R = ~keys.are_dead(self.key_R, write)
        return Rows(
            vectors_RD=self.flat.reconstruct_n(0, self.flat.ntotal)[live_R],
            key_R=self.key_R[live_R],
            form_R=self.form_R[live_R],
        )


class State(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All that a search reads, as it was after a write."""

    write: int
    """The number of that write."""
    segments: tuple[FlatSegment, ...]
    """Oldest first."""
    frozen: tuple[FlatSegment, ...] = ()
    """Those whose rows are being moved into a sealed segment."""
    sealed: tuple[IvfSegment, ...] = ()
    died_at_K: NDArray[np.int64]
    """See `EditKeys`."""
    epoch: Epoch


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """Reads the rows of one part of a state that are nearest to the queries of a search."""

    read: Callable[[slice, int], NearestRows]
    """Which of the queries, and how many rows for each."""
    rows: int
    """How many there are."""


class FaissFlatIndex(EditIndex):
    """Exact inner-product search in memory."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._keys = EditKeys()
        self._state = State(write=0, segments=(), died_at_K=self._keys.died_at_K, epoch=self._keys.epoch)
        self._dead_keys = 0
        """Of rows that are still there."""
        self._publishing = threading.Lock()
        """Held while the state is replaced. Searches never take it."""

    def put(self, edits: Iterable[tuple[str, Vectors]]) -> None:
        """See `EditIndex.put`."""
        newest = {edit_id: self._checked(edit_id, vectors_FD) for edit_id, vectors_FD in edits}
        if not newest:
            return
        rows_RD = np.concatenate(list(newest.values()), dtype=np.float32)
        counts = [len(vectors_FD) for vectors_FD in newest.values()]
        form_R = np.concatenate([np.arange(count) for count in counts])
        with self._publishing:
            write = self._state.write + 1
            held = len(self._keys)
            keys = [self._keys.put(edit_id, write) for edit_id in newest]
            self._dead_keys += held + len(newest) - len(self._keys)
            segment = FlatSegment(flat=self._flat(rows_RD), key_R=np.repeat(keys, counts), form_R=form_R)
            self._publish((*self._state.segments, segment), write)

    def remove(self, edit_ids: Iterable[str]) -> None:
        """See `EditIndex.remove`."""
        with self._publishing:
            write = self._state.write + 1
            removed = sum([self._keys.remove(edit_id, write) for edit_id in edit_ids])
            if removed:
                self._dead_keys += removed
                self._publish(self._state.segments, write)

    def search(self, queries_BD: Vectors, k: int) -> list[list[Neighbour]]:
        """See `EditIndex.search`."""
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        if queries_BD.ndim != 2 or queries_BD.shape[1] != self._width:
            raise ValueError(
                f"queries of shape {queries_BD.shape} do not fit an index of width {self._width}"
            )
        return self._search(self._state, np.ascontiguousarray(queries_BD, dtype=np.float32), k)

    def make_room(self) -> None:
        """See `EditIndex.make_room`: nothing is done in the background."""

    def settle(self) -> None:
        """See `EditIndex.settle`: nothing is done in the background."""

    def __len__(self) -> int:
        """How many edits are indexed."""
        return len(self._keys)

    def __contains__(self, edit_id: str) -> bool:
        """Whether the edit is indexed."""
        return edit_id in self._keys

    def _search(self, state: State, queries_BD: Vectors, k: int) -> list[list[Neighbour]]:
        return self._nearest(state, self._readers(state, queries_BD, k), len(queries_BD), k)

    def _readers(self, state: State, queries_BD: Vectors, k: int) -> list[Reader]:
        """What reads the rows of each part of `state` that are nearest."""
        return [
            Reader(read=partial(segment.search, queries_BD), rows=segment.rows)
            for segment in (*state.frozen, *state.segments)
        ]

    def _nearest(
        self, state: State, readers: Sequence[Reader], queries: int, k: int
    ) -> list[list[Neighbour]]:
        batch = slice(0, queries)
        nearest_rows = [reader.read(batch, min(k * _OVERFETCH, reader.rows)) for reader in readers]
        return [self._row(state, readers, nearest_rows, query, k) for query in range(queries)]

    def _row(
        self, state: State, readers: Sequence[Reader], nearest_rows: Sequence[NearestRows], query: int, k: int
    ) -> list[Neighbour]:
        """The `k` nearest edits, for which more rows are read where those read may not be all it takes.

        Rows of one edit, or dead ones, can crowd the nearest rows of a part.
        """
        at = slice(query, query + 1)
        parts = [part.of(at) for part in nearest_rows]
        while True:
            neighbours = self._merged_parts(state, parts, k)
            bar = neighbours[-1].similarity if len(neighbours) == k else -np.inf
            short = [number for number, part in enumerate(parts) if part.goes_on(readers[number].rows, bar)]
            if not short:
                return neighbours
            for number in short:
                fetched = min(parts[number].similarities_BK.shape[1] * _OVERFETCH, readers[number].rows)
                parts[number] = readers[number].read(at, fetched)

    def _merged_parts(self, state: State, parts: Sequence[NearestRows], k: int) -> list[Neighbour]:
        """The `k` nearest edits in rows that were read for one query."""
        if not parts:
            return []
        similarity_R = np.concatenate([part.similarities_BK[0] for part in parts])
        key_R = np.concatenate([part.key_BK[0] for part in parts])
        form_R = np.concatenate([part.form_BK[0] for part in parts])
        order_R = np.argsort(-similarity_R, kind="stable")
        order_R = order_R[(key_R[order_R] >= 0) & (state.died_at_K[key_R[order_R]] > state.write)]
        nearest: dict[int, tuple[int, float]] = {}
        bar = -np.inf
        rows = (key_R[order_R].tolist(), form_R[order_R].tolist(), similarity_R[order_R].tolist())
        for key, form, similarity in zip(*rows, strict=True):
            if similarity < bar:
                break
            if key not in nearest:
                nearest[key] = (form, similarity)
                if len(nearest) == k:
                    bar = similarity  # those as near as the last one may have a lower id
        edit_ids = self._keys.edit_ids
        neighbours = [
            Neighbour(edit_id=edit_ids[key], form=form, similarity=similarity)
            for key, (form, similarity) in nearest.items()
        ]
        return sorted(neighbours, key=lambda neighbour: (-neighbour.similarity, neighbour.edit_id))[:k]

    def _flat(self, vectors_RD: Vectors) -> FlatRows:
        rows_RD = np.ascontiguousarray(vectors_RD)
        return Fp16Rows(rows_RD) if len(rows_RD) >= _FP16_ROWS else PlainRows(rows_RD)

    def _checked(self, edit_id: str, vectors_FD: Vectors) -> Vectors:
        if (
            vectors_FD.ndim != 2
            or not 1 <= vectors_FD.shape[0] < MAX_FORMS
            or vectors_FD.shape[1] != self._width
        ):
            raise ValueError(
                f"vectors of edit {edit_id!r} have shape {vectors_FD.shape}; this index takes"
                f" (1 to {MAX_FORMS - 1}, {self._width})"
            )
        return vectors_FD

    def _publish(self, segments: Sequence[FlatSegment], write: int) -> None:
        """Merge what is due, and put the state after `write` in place."""
        if self._is_mostly_dead():
            segments = [kept for segment in segments for kept in self._merged([segment], write)]
        stack: list[FlatSegment] = []
        for segment in segments:
            stack.append(segment)
            while len(stack) > 1 and _belong_together(stack[-2], stack[-1]):
                last, before = stack.pop(), stack.pop()
                stack += self._merged([before, last], write)
        self._replace(write=write, segments=tuple(stack))

    def _replace(self, **changes: object) -> None:
        """Put a new state in place, which differs from the present one by `changes`."""
        self._state = msgspec.structs.replace(
            self._state, **changes, died_at_K=self._keys.died_at_K, epoch=self._keys.epoch
        )

    def _is_mostly_dead(self) -> bool:
        return self._dead_keys > max(_SMALL_ROWS, len(self))

    def _merged(self, segments: Sequence[FlatSegment], write: int) -> list[FlatSegment]:
        """One segment of the rows of `segments` that count after `write`, or none."""
        live = [segment.live_rows(self._keys, write) for segment in segments]
        for segment in segments:
            dead_R = self._keys.are_dead(segment.key_R, write)
            self._release(np.unique(segment.key_R[dead_R]).tolist())
        key_R = np.concatenate([rows.key_R for rows in live])
        if not len(key_R):
            return []
        return [
            FlatSegment(
                flat=self._flat(np.concatenate([rows.vectors_RD for rows in live])),
                key_R=key_R,
                form_R=np.concatenate([rows.form_R for rows in live]),
            )
        ]

    def _release(self, dead_keys: Sequence[int]) -> None:
        """The rows of the keys are in no state from the next one on."""
        self._dead_keys -= len(dead_keys)
        self._keys.release(dead_keys)


def _belong_together(before: FlatSegment, last: FlatSegment) -> bool:
    together = before.rows + last.rows
    return together <= _SMALL_ROWS or (before.rows < 2 * last.rows and together <= _LARGEST_ROWS)
