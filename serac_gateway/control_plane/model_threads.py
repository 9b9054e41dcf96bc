"""The decision threads as the control plane uses them: in slices, never all of them, and in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from serac_gateway.errors import ModelUnavailableError

SLICE_QUERIES = 4
"""Queries decided in one go: of 2,000 characters each, they take a thread for about half a second."""

_T = TypeVar("_T")


class ModelThreads:
    """Runs calls on a pool that also decides requests. Belongs to one event loop."""

    def __init__(self, pool: Executor, *, threads: int = 1, timeout_s: float = 60.0) -> None:
        """`pool` has that many `threads`; `timeout_s`: see `time_limit`."""
        self._pool = pool
        self._free = asyncio.Semaphore(max(1, threads - 1))
        self._timeout_s = timeout_s

    async def run(self, call: Callable[[], _T]) -> _T:
        """What `call` returns; it waits until fewer calls than threads run, in order of arrival.

        A call that has begun runs to its end and keeps its place until then, also if the caller is cancelled.
        """
        await self._free.acquire()
        try:
            future = self._pool.submit(call)
        except BaseException:
            self._free.release()
            raise
        loop = asyncio.get_running_loop()

        def release(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._free.release)

        future.add_done_callback(release)
        return await asyncio.wrap_future(future)

    def time_limit(self, what: str) -> AbstractAsyncContextManager[None]:
        """Ends the block, named `what` in the error, after the threads' `timeout_s`, as `time_limit` does."""
        return time_limit(what, self._timeout_s, "give fewer or shorter queries")


@asynccontextmanager
async def time_limit(what: str, timeout_s: float, remedy: str) -> AsyncIterator[None]:
    """Ends the block, named `what` in the error, after `timeout_s` seconds, models.control_timeout_s.

    Raises:
        ModelUnavailableError: The time is over.
    """
    try:
        async with asyncio.timeout(timeout_s) as limit:
            yield
    except TimeoutError as exc:
        if not limit.expired():
            raise
        raise ModelUnavailableError(
            f"{what} took longer than {timeout_s:g} s; {remedy}, or have the operator raise"
            " models.control_timeout_s",
            details={"reason": "control timeout", "limit": timeout_s},
        ) from exc
