"""Exact search over immutable segments, swapped by reference.

A write never touches what a running search reads: it builds new segments and puts a new `_State` in place
with one assignment. Small segments are merged as they come, larger ones geometrically up to a limit, so there
are few of them and a row is copied O(log rows) times (the log-structured merge tree: O'Neil et al., 1996).
The limit bounds what a merge needs besides what is there. Replaced and removed edits leave dead rows behind,
which merges drop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import faiss
import msgspec
import numpy as np
from numpy.typing import NDArray

from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.base import EditIndex, Neighbour
from serac_gateway.edit_index.fp16_rows import Fp16Rows

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
    """What the index needs of a flat faiss index, wherever its rows lie."""

    ntotal: int

    def search(self, x: Vectors, k: int, /) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Similarities and rows, best first. *Shape:* (B, k) each."""

    def reconstruct_n(self, n0: int, ni: int, /) -> Vectors:
        """Rows `n0` to `n0 + ni`."""


class _Segment(msgspec.Struct, frozen=True, kw_only=True):
    flat: FlatRows
    key_R: NDArray[np.int64]
    """Which put each row came from. All rows of a put lie in one segment."""
    form_R: NDArray[np.int64]


class _State(msgspec.Struct, frozen=True, kw_only=True):
    segments: tuple[_Segment, ...] = ()
    """Oldest first."""
    dead: frozenset[int] = frozenset()
    """Keys of rows that are still there but no longer count."""


class FaissFlatIndex(EditIndex):
    """Exact inner-product search in memory."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._state = _State()
        self._edit_id_of_key: list[str] = []  # append-only: searches look up the keys of rows
        self._key_of_edit_id: dict[str, int] = {}

    def put(self, edits: Iterable[tuple[str, Vectors]]) -> None:
        """See `EditIndex.put`."""
        newest = {edit_id: self._checked(edit_id, vectors_FD) for edit_id, vectors_FD in edits}
        if not newest:
            return
        dead = set(self._state.dead)
        keys: list[int] = []
        for edit_id in newest:
            if (old_key := self._key_of_edit_id.get(edit_id)) is not None:
                dead.add(old_key)
            self._key_of_edit_id[edit_id] = len(self._edit_id_of_key)
            keys.append(len(self._edit_id_of_key))
            self._edit_id_of_key.append(edit_id)
        counts = [len(vectors_FD) for vectors_FD in newest.values()]
        segment = _Segment(
            flat=self._flat(np.concatenate(list(newest.values()))),
            key_R=np.repeat(np.array(keys, dtype=np.int64), counts),
            form_R=np.concatenate([np.arange(count, dtype=np.int64) for count in counts]),
        )
        self._swap((*self._state.segments, segment), dead)

    def remove(self, edit_ids: Iterable[str]) -> None:
        """See `EditIndex.remove`."""
        gone = {key for edit_id in edit_ids if (key := self._key_of_edit_id.pop(edit_id, None)) is not None}
        if gone:
            self._swap(self._state.segments, gone | self._state.dead)

    def search(self, queries_BD: Vectors, k: int) -> list[list[Neighbour]]:
        """See `EditIndex.search`."""
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        if queries_BD.ndim != 2 or queries_BD.shape[1] != self._width:
            raise ValueError(
                f"queries of shape {queries_BD.shape} do not fit an index of width {self._width}"
            )
        state = self._state
        rows_B: list[list[Neighbour]] = [[] for _ in queries_BD]
        for segment in state.segments:
            for row, neighbours in zip(
                rows_B, self._search_segment(segment, state.dead, queries_BD, k), strict=True
            ):
                row += neighbours
        return [
            sorted(row, key=lambda neighbour: (-neighbour.similarity, neighbour.edit_id))[:k]
            for row in rows_B
        ]

    def __len__(self) -> int:
        """How many edits are indexed."""
        return len(self._key_of_edit_id)

    def __contains__(self, edit_id: str) -> bool:
        """Whether the edit is indexed."""
        return edit_id in self._key_of_edit_id

    def _flat(self, vectors_RD: Vectors) -> FlatRows:
        rows_RD = np.ascontiguousarray(vectors_RD)
        if len(rows_RD) >= _FP16_ROWS:
            return Fp16Rows(rows_RD)
        flat = faiss.IndexFlatIP(self._width)
        flat.add(rows_RD)
        return flat

    def _search_segment(
        self, segment: _Segment, dead: frozenset[int], queries_BD: Vectors, k: int
    ) -> list[list[Neighbour]]:
        """The segment's own `k` nearest live edits for each query."""
        fetched = k * _OVERFETCH
        while True:
            fetched = min(fetched, segment.flat.ntotal)
            similarities_BR, rows_BR = segment.flat.search(np.ascontiguousarray(queries_BD), fetched)
            rows_B = [
                self._distinct_live(segment, dead, rows_R, similarities_R, k)
                for rows_R, similarities_R in zip(rows_BR, similarities_BR, strict=True)
            ]
            if fetched == segment.flat.ntotal or all(len(row) == k for row in rows_B):
                return rows_B
            fetched *= _OVERFETCH  # forms of few edits, or dead rows, crowd the top

    def _distinct_live(
        self,
        segment: _Segment,
        dead: frozenset[int],
        rows_R: NDArray[np.int64],
        similarities_R: NDArray[np.float32],
        k: int,
    ) -> list[Neighbour]:
        neighbours: list[Neighbour] = []
        seen: set[int] = set()
        keys = segment.key_R[rows_R].tolist()
        forms = segment.form_R[rows_R].tolist()
        for key, form, similarity in zip(keys, forms, similarities_R.tolist(), strict=True):
            if key in seen or key in dead:
                continue
            seen.add(key)
            neighbours.append(Neighbour(edit_id=self._edit_id_of_key[key], form=form, similarity=similarity))
            if len(neighbours) == k:
                break
        return neighbours

    def _checked(self, edit_id: str, vectors_FD: Vectors) -> Vectors:
        if vectors_FD.ndim != 2 or vectors_FD.shape[0] < 1 or vectors_FD.shape[1] != self._width:
            raise ValueError(
                f"vectors of edit {edit_id!r} have shape {vectors_FD.shape}; this index takes"
                f" (at least 1, {self._width})"
            )
        return vectors_FD

    def _swap(self, segments: Sequence[_Segment], dead: Iterable[int]) -> None:
        """Merge what is due, and put the new state in place."""
        dead = set(dead)
        if len(dead) > max(_SMALL_ROWS, len(self)):
            segments = [kept for segment in segments for kept in self._merged([segment], dead)]
        stack: list[_Segment] = []
        for segment in segments:
            stack.append(segment)
            while len(stack) > 1 and _belong_together(stack[-2], stack[-1]):
                last, before = stack.pop(), stack.pop()
                stack += self._merged([before, last], dead)
        self._state = _State(segments=tuple(stack), dead=frozenset(dead))

    def _merged(self, segments: Sequence[_Segment], dead: set[int]) -> list[_Segment]:
        """One segment of the live rows of `segments`, or none; the keys it drops leave `dead`."""
        keep = [~np.isin(segment.key_R, list(dead)) for segment in segments]
        for segment, keep_R in zip(segments, keep, strict=True):
            dead.difference_update(segment.key_R[~keep_R].tolist())
        if not any(keep_R.any() for keep_R in keep):
            return []
        rows_RD = np.concatenate(
            [
                segment.flat.reconstruct_n(0, segment.flat.ntotal)[keep_R]
                for segment, keep_R in zip(segments, keep, strict=True)
            ]
        )
        return [
            _Segment(
                flat=self._flat(rows_RD),
                key_R=np.concatenate([segment.key_R[at] for segment, at in zip(segments, keep, strict=True)]),
                form_R=np.concatenate(
                    [segment.form_R[at] for segment, at in zip(segments, keep, strict=True)]
                ),
            )
        ]


def _belong_together(before: _Segment, last: _Segment) -> bool:
    rows_before, rows_last = len(before.key_R), len(last.key_R)
    together = rows_before + rows_last
    return together <= _SMALL_ROWS or (rows_before < 2 * rows_last and together <= _LARGEST_ROWS)
