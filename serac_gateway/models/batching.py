"""Batches out of what several threads ask for at once: while one is computed, the next gathers.

Nobody waits for company: a call that finds nothing under way is computed at once and alone. Under load the
batches grow by themselves until a device keeps up (a self-clocked queue). There is no thread of its own: who
comes first computes for all that wait, and then the first of those who came meanwhile does.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class SharedBatches(Generic[ItemT, ResultT]):
    """Thread-safe. At most one batch is computed at a time."""

    def __init__(self, compute: Callable[[list[ItemT]], Sequence[ResultT]], *, most: int) -> None:
        """`compute` returns one result an item, in order. A batch has at most `most` items, or one call's."""
        self._compute = compute
        self._most = most
        self._lock = threading.Lock()
        self._waiting: deque[_Call[ItemT, ResultT]] = deque()
        self._is_busy = False

    def run(self, items: Sequence[ItemT]) -> list[ResultT]:
        """The results of `items`, in order, computed together with those of other threads.

        Raises:
            Exception: Whatever `compute` raised on the batch.
        """
        if not items:
            return []
        call = _Call[ItemT, ResultT](list(items))
        with self._lock:
            self._waiting.append(call)
            leads, self._is_busy = not self._is_busy, True
        if not leads:
            call.turn.wait()
        if call.results is None and call.failure is None:
            self._compute_next()
        if call.failure is not None:
            raise call.failure
        assert call.results is not None
        return call.results

    def _compute_next(self) -> None:
        """Compute the calls that wait, the first of which is this thread's, and give the lead on."""
        batch: list[_Call[ItemT, ResultT]] = []
        with self._lock:
            count = 0
            while self._waiting and (not batch or count + len(self._waiting[0].items) <= self._most):
                batch.append(self._waiting.popleft())
                count += len(batch[-1].items)
        try:
            results = list(self._compute([item for call in batch for item in call.items]))
            for call in batch:
                call.results, results = results[: len(call.items)], results[len(call.items) :]
        except BaseException as exc:
            for call in batch:
                call.failure = exc
        with self._lock:
            self._is_busy = bool(self._waiting)
            leader = self._waiting[0] if self._waiting else None
        if leader is not None:
            leader.turn.set()
        for call in batch:
            call.turn.set()


class _Call(Generic[ItemT, ResultT]):
    __slots__ = ("failure", "items", "results", "turn")

    def __init__(self, items: list[ItemT]) -> None:
        self.items = items
        self.results: list[ResultT] | None = None
        self.failure: BaseException | None = None
        self.turn = threading.Event()
        """Set when it is computed, or when its thread has to compute the next batch."""
