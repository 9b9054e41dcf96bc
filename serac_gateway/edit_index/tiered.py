"""Exact search among few vectors, approximate among many: an exact delta before sealed inverted lists.

What is written lands in the exact part and is seen by the next search. Once that part is large, it is frozen,
and a thread beside moves its rows into a sealed segment of inverted lists; until the one replaces the other,
by reference, searches read the frozen rows exactly. The same thread merges sealed segments, drops dead rows
and trains centroids anew when four times as many rows are there as they were made for, segment by segment, so
that no more than `LARGEST_ROWS` rows are held twice. (Log-structured merging as in O'Neil et al., 1996; with
tombstones and sealed segments as in FreshDiskANN, Singh et al., 2021.)
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import faiss
import numpy as np
from numpy.typing import NDArray

from serac_gateway.config.model import IndexConfig
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.base import Neighbour
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex, Reader, State
from serac_gateway.edit_index.ivf import IvfScheme, IvfSegment, Precision, Rows

log = logging.getLogger(__name__)

LARGEST_ROWS = 1_000_000
"""Of a sealed segment that is made by merging."""
_MOST_DEAD = 0.2
"""Of a sealed segment's edits, before it is written anew."""
_MOST_SMALL = 4
"""Sealed segments of less than half the largest size."""
_GROWTH = 4
"""Times as many rows as the lists were made for, and they are made anew: recall falls as lists grow."""
_SAMPLE_ROWS = 200_000
"""At most, from which lists are made: 300 MB at 384 dimensions, for as long as that takes."""
_FEWEST_SAMPLES = 10
"""Of a list."""
_LISTS_PER_ROOT = 10
"""Times the square root of the number of rows half-way to the next growth. With many short lists a query
reads fewer rows for the same recall, until finding the nearest lists takes longer than reading them."""
_FEWEST_LISTS = 32
_FINER_ROWS = 400_000
"""Of an index when its lists are made, up to which they are fp16 by default: they serve up to `_GROWTH` times
as many, then 1.2 GB at 384 dimensions."""
_USUAL_K = 8
_BACKLOG_ROWS = 65_536
"""Rows beyond the exact part's limit with which a bulk load waits for them to be sealed."""
_PAUSE_S = 30
"""After a failure."""
_WAIT_S = 0.5
_STOPPING_S = 5.0
"""At most, for a step of the work; the thread dies with the process."""


class _Stopped(Exception):
    """The process ends."""


class SealingThread:
    """The one thread of a process that seals, merges and trains, for all its indexes. Starts when needed."""

    def __init__(self) -> None:
        self._due: queue.SimpleQueue[TieredIndex | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self.progress = threading.Condition()
        """Notified when an index has done something."""
        self._stopping = threading.Event()

    def wake(self, index: TieredIndex) -> None:
        """Have the index do what is due."""
        with self._starting:
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="index-sealing", daemon=True)
                self._thread.start()
        self._due.put(index)

    @property
    def is_alive(self) -> bool:
        """Whether work that is due will be done."""
        return not self._stopping.is_set()

    def check(self) -> None:
        """Between two steps of long work.

        Raises:
            _Stopped: The process ends.
        """
        if self._stopping.is_set():
            raise _Stopped

    def close(self) -> None:
        """End what runs, within seconds; what is not sealed stays exact. Idempotent."""
        self._stopping.set()
        self._due.put(None)
        if self._thread is not None:
            self._thread.join(_STOPPING_S)

    def _run(self) -> None:
        faiss.omp_set_num_threads(1)  # of this thread alone: searches need the other cores
        while (index := self._due.get()) is not None and not self._stopping.is_set():
            index.maintain()


class TieredIndex(FaissFlatIndex):
    """Exact up to `IndexConfig.exact_vectors`, then approximate, with an exact part for what is new."""

    def __init__(self, width: int, *, config: IndexConfig, thread: SealingThread) -> None:
        super().__init__(width)
        self._config = config
        self._thread = thread
        self._scheme: IvfScheme | None = None
        self._made_for_rows = 0
        """How many rows the scheme's lists were made for."""
        self._changes = 0
        """Edits put or removed since what is due was last looked for."""
        self._is_waiting = self._is_running = False
        """Whether the thread has been woken and has not begun; whether it is at work here."""
        self._retry_at_s = 0.0
        """After a failure."""

    def put(self, edits: Iterable[tuple[str, Vectors]]) -> None:
        """See `EditIndex.put`."""
        edits = list(edits)
        super().put(edits)
        self._note_changes(len(edits))

    def remove(self, edit_ids: Iterable[str]) -> None:
        """See `EditIndex.remove`."""
        edit_ids = list(edit_ids)
        super().remove(edit_ids)
        self._note_changes(len(edit_ids))

    def make_room(self) -> None:
        """See `EditIndex.make_room`."""
        if self._is_full() and time.monotonic() >= self._retry_at_s:
            self._wake()  # the last put may have come within the pause after a failure, and woken nobody
            self._wait_while(self._is_full)

    def settle(self) -> None:
        """See `EditIndex.settle`."""
        self._wake()
        self._wait_while(lambda: self._is_waiting or self._is_running)

    @property
    def sealed_rows(self) -> int:
        """Rows that are searched approximately, dead ones included."""
        return sum(segment.rows for segment in self._state.sealed)

    def _exact_rows(self) -> int:
        return sum(segment.rows for segment in (*self._state.frozen, *self._state.segments))

    def _is_full(self) -> bool:
        """Whether so many rows wait to be sealed that a bulk load should wait."""
        return self._exact_rows() > self._exact_limit() + _BACKLOG_ROWS

    def _exact_limit(self) -> int:
        return self._config.delta_vectors if self._state.sealed else self._config.exact_vectors

    def _note_changes(self, changes: int) -> None:
        self._changes += changes
        are_many = bool(self._state.sealed) and self._changes > _MOST_DEAD / 2 * len(self)
        is_due = are_many or self._exact_rows() > self._exact_limit()
        if is_due and time.monotonic() >= self._retry_at_s:
            self._wake()

    def _wake(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            self._thread.wake(self)

    def _wait_while(self, condition: Callable[[], bool]) -> None:
        """Wait, for no longer than the thread is alive and its work succeeds."""
        with self._thread.progress:
            while condition() and self._thread.is_alive and time.monotonic() >= self._retry_at_s:
                self._thread.progress.wait(_WAIT_S)

    def _readers(self, state: State, queries_BD: Vectors, k: int) -> list[Reader]:
        return self._readers_of(state, queries_BD, math.sqrt(max(1.0, k / _USUAL_K)))

    def _search(self, state: State, queries_BD: Vectors, k: int) -> list[list[Neighbour]]:
        rows_BK = super()._search(state, queries_BD, k)
        if not state.sealed:
            return rows_BK
        for query, row in enumerate(rows_BK):
            if len(row) < min(k, len(self)):  # the lists that were read hold fewer
                text_1D = queries_BD[query : query + 1]
                (rows_BK[query],) = self._nearest(state, self._readers_of(state, text_1D, math.inf), 1, k)
        return rows_BK

    def _readers_of(self, state: State, queries_BD: Vectors, share: float) -> list[Reader]:
        """Readers of `share` times as many lists as usually."""
        readers = super()._readers(state, queries_BD, 1)
        rows_of: Counter[IvfScheme] = Counter()
        for segment in state.sealed:
            rows_of[segment.scheme] += segment.rows
        near: dict[IvfScheme, NDArray[np.int64]] = {}
        for scheme, rows in rows_of.items():
            wanted = max(_FEWEST_LISTS, self._config.read_vectors * len(scheme.centroids) / max(1, rows))
            near[scheme] = scheme.nearest_lists(
                queries_BD, math.ceil(min(wanted * share, len(scheme.centroids)))
            )
        for segment in state.sealed:
            read = partial(segment.search, queries_BD, near[segment.scheme])
            readers.append(Reader(read=read, rows=segment.rows))
        return readers

    def maintain(self) -> None:
        """Do all that is due. For the sealing thread; a failure is logged, and searches go on as before."""
        self._is_running, self._is_waiting, self._changes = True, False, 0
        try:
            # Within the pause after a failure it may have been woken again: that would fail again.
            while time.monotonic() >= self._retry_at_s and self._step():
                with self._thread.progress:
                    self._thread.progress.notify_all()
        except _Stopped:
            self._thaw()
        except Exception:
            self._retry_at_s = time.monotonic() + _PAUSE_S
            self._thaw()
            log.exception(
                "an index of %d edits could not be rebuilt, serves as it was, and is tried again after %d s;"
                " if memory is short, give the process more, or set index.precision to int8",
                len(self), _PAUSE_S,
            )  # fmt: skip
        self._is_running = False
        with self._thread.progress:
            self._thread.progress.notify_all()

    def _step(self) -> bool:
        """Do one thing that is due; false if nothing was."""
        self._thread.check()
        sealed = self._state.sealed
        small = sorted((s for s in sealed if s.rows < LARGEST_ROWS / 2), key=lambda segment: segment.rows)
        if self._exact_rows() > self._exact_limit():
            self._seal()
        elif self._scheme is not None and self.sealed_rows > _GROWTH * self._made_for_rows:
            self._train(segment.sampled for segment in sealed)
        elif outdated := [segment for segment in sealed if segment.scheme is not self._scheme]:
            self._replace_sealed(outdated[:1], self._rewritten)
        elif mostly_dead := [segment for segment in sealed if self._dead_share(segment) > _MOST_DEAD]:
            self._replace_sealed(mostly_dead[:1], self._merged_sealed)
        elif len(small) > _MOST_SMALL:
            self._replace_sealed(_together(small), self._merged_sealed)
        else:
            return False
        return True

    def _seal(self) -> None:
        """Move the rows of the exact part into a sealed segment."""
        with self._publishing:
            self._replace(frozen=self._state.segments, segments=())
            frozen, write = self._state.frozen, self._state.write
        keys = np.unique(np.concatenate([segment.key_R for segment in frozen]))
        dead = keys[self._keys.are_dead(keys, write)].tolist()
        made: list[IvfSegment] = []
        if len(dead) < len(keys):
            if self._scheme is None:
                self._train(partial(_sampled, segment.live_rows(self._keys, write)) for segment in frozen)
            assert self._scheme is not None
            parts = (segment.live_rows(self._keys, write) for segment in frozen)
            made = [self._scheme.segment(parts, on_chunk=self._thread.check)]
        with self._publishing:
            self._release(dead)
            self._replace(frozen=(), sealed=(*self._state.sealed, *made))

    def _thaw(self) -> None:
        """Let what could not be sealed be part of the exact part again."""
        with self._publishing:
            self._replace(frozen=(), segments=(*self._state.frozen, *self._state.segments))

    def _train(self, samples: Iterable[Callable[[int], Vectors]]) -> None:
        """Make the scheme of further segments. `samples` each give as many rows as they are asked for."""
        sources = list(samples)
        sample_RD = np.concatenate([sample(_SAMPLE_ROWS // len(sources)) for sample in sources])
        rows = max(1, len(sample_RD), self.sealed_rows or self._exact_rows())
        lists = 2 ** round(math.log2(_LISTS_PER_ROOT * math.sqrt(2 * rows)))
        self._scheme = IvfScheme.trained(
            sample_RD,
            lists=max(1, min(lists, len(sample_RD) // _FEWEST_SAMPLES)),
            precision=self._precision(rows),
            like=self._scheme,
        )
        self._made_for_rows = rows

    def _precision(self, rows: int) -> Precision:
        """Of lists that are made for so many rows."""
        chosen = self._config.precision
        return chosen if chosen != "auto" else "fp16" if rows <= _FINER_ROWS else "int8"

    def _replace_sealed(
        self,
        segments: Sequence[IvfSegment],
        make: Callable[[Sequence[IvfSegment], int], IvfSegment],
    ) -> None:
        """Put what `make` makes of the segments' rows that count after a write in their place."""
        write = self._state.write
        made = make(segments, write)
        keys = np.concatenate([segment.key_E for segment in segments])
        with self._publishing:
            self._release(keys[self._keys.are_dead(keys, write)].tolist())
            replaced = {id(segment) for segment in segments}
            kept = [segment for segment in self._state.sealed if id(segment) not in replaced]
            self._replace(sealed=(*kept, *([made] if made.rows else [])))

    def _merged_sealed(self, segments: Sequence[IvfSegment], write: int) -> IvfSegment:
        return segments[0].scheme.merged(segments, lambda keys: self._keys.are_dead(keys, write))

    def _rewritten(self, segments: Sequence[IvfSegment], write: int) -> IvfSegment:
        """The rows of the segments in the present scheme."""
        assert self._scheme is not None
        parts = (
            rows.where(~self._keys.are_dead(rows.key_R, write))
            for segment in segments
            for rows in segment.rows_in_full()
        )
        return self._scheme.segment(parts, on_chunk=self._thread.check)

    def _dead_share(self, segment: IvfSegment) -> float:
        return float(self._keys.are_dead(segment.key_E, self._state.write).mean())


def _together(small: Sequence[IvfSegment]) -> list[IvfSegment]:
    """Of segments in ascending order the first two, and further ones that are not much larger than those."""
    together, rows = list(small[:2]), small[0].rows + small[1].rows
    for segment in small[2:]:
        if segment.rows > 2 * rows or rows + segment.rows > LARGEST_ROWS:
            break
        together.append(segment)
        rows += segment.rows
    return together


def _sampled(rows: Rows, count: int) -> Vectors:
    """About `count` of the rows, at equal distances."""
    return rows.vectors_RD[:: max(1, len(rows.key_R) // max(1, count))]
