"""Hands what a worker thread produces to the event loop, item by item."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from typing import TypeVar

Item = TypeVar("Item")


class _End:
    pass


async def items_from_thread(
    pool: Executor, produce: Callable[[Callable[[], bool]], Iterator[Item]]
) -> AsyncGenerator[Item, None]:
    """Run `produce(cancelled)` on a thread of `pool` and yield its items as they come.

    Close the generator (`contextlib.aclosing`) to stop early: work that has not begun is taken out of the
    pool's queue, work that has begun sees `cancelled()` turn true.

    Raises:
        Exception: What `produce` or its iterator raised.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Item | BaseException | _End] = asyncio.Queue()
    cancelled = threading.Event()

    def hand_over(item: Item | BaseException | _End) -> None:
        if not cancelled.is_set():  # else nobody listens, and the loop may be gone
            loop.call_soon_threadsafe(arrived.put_nowait, item)

    def work() -> None:
        try:
            for item in produce(cancelled.is_set):
                hand_over(item)
            hand_over(_End())
        except BaseException as exc:  # the top of a thread: it is raised again on the loop
            hand_over(exc)

    job = pool.submit(work)
    try:
        while not isinstance(item := await arrived.get(), _End):
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        cancelled.set()
        job.cancel()
