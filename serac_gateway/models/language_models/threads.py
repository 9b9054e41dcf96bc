"""The one bridge from a worker thread to the event loop: hands over items as they are produced."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from typing import Generic, TypeVar

from typing_extensions import override

ItemT = TypeVar("ItemT")


class _End:
    pass


class ThreadItems(AsyncIterator[ItemT], Generic[ItemT]):
    """The items of an iterator that runs on a worker thread. Belongs to one event loop.

    Close it with `aclose` (`contextlib.aclosing`), also after an exception: work that has not begun leaves
    the pool's queue, work that has begun sees `cancelled()` turn true. Cancelling a wait loses no item.
    """

    def __init__(self, pool: Executor, produce: Callable[[Callable[[], bool]], Iterator[ItemT]]) -> None:
        """Run `produce(cancelled)` on a thread of `pool`; call it in a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._produce = produce
        self._arrived: asyncio.Queue[ItemT | BaseException | _End] = asyncio.Queue()
        self._cancelled = threading.Event()
        self._job = pool.submit(self._work)

    @override
    async def __anext__(self) -> ItemT:
        """The next item.

        Raises:
            Exception: Raised by `produce` or its iterator.
        """
        if self._cancelled.is_set():
            raise StopAsyncIteration
        item = await self._arrived.get()
        if isinstance(item, _End):
            await self.aclose()
            raise StopAsyncIteration
        if isinstance(item, BaseException):
            await self.aclose()
            raise item
        return item

    async def aclose(self) -> None:
        """Stop the work without waiting for its end. Idempotent."""
        self._cancelled.set()
        self._job.cancel()

    def _work(self) -> None:
        try:
            for item in self._produce(self._cancelled.is_set):
                self._hand_over(item)
            self._hand_over(_End())
        except BaseException as exc:  # the top of a thread: the loop raises it again
            self._hand_over(exc)

    def _hand_over(self, item: ItemT | BaseException | _End) -> None:
        if not self._cancelled.is_set():  # else nothing reads the items, and the loop may be closed
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, item)
