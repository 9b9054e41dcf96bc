"""The control plane's share of the decision threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from serac_gateway.control_plane.http.client_watch import unless_client_leaves
from serac_gateway.control_plane.model_threads import ModelThreads
from serac_gateway.errors import InvalidRequestError, ModelUnavailableError

THREADS = 3


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as pool:
        yield pool


async def test_one_thread_stays_free_for_requests(pool: ThreadPoolExecutor) -> None:
    """However many calls wait, a decision on a request begins at once."""
    threads, free = ModelThreads(pool, threads=THREADS), threading.Event()
    calls = [asyncio.create_task(threads.run(free.wait)) for _ in range(10)]
    await asyncio.sleep(0.05)
    assert await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(pool, lambda: 7), 5) == 7
    assert not any(call.done() for call in calls)
    free.set()
    assert all(await asyncio.gather(*calls))


async def test_a_cancelled_call_keeps_its_place_until_its_thread_is_free(pool: ThreadPoolExecutor) -> None:
    threads, free = ModelThreads(pool, threads=2), threading.Event()
    first = asyncio.create_task(threads.run(free.wait))
    await asyncio.sleep(0.05)
    first.cancel()
    second = asyncio.create_task(threads.run(lambda: "second"))
    await asyncio.sleep(0.05)
    assert first.cancelled()
    assert not second.done()
    free.set()
    assert await asyncio.wait_for(second, 5) == "second"


async def test_a_call_that_raises_makes_room(pool: ThreadPoolExecutor) -> None:
    threads = ModelThreads(pool)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)


async def test_a_block_beyond_its_time_ends_with_an_error(pool: ThreadPoolExecutor) -> None:
    threads = ModelThreads(pool, timeout_s=0.02)
    with pytest.raises(ModelUnavailableError, match=r"the preview took longer than 0\.02 s"):
        async with threads.time_limit("the preview"):
            await asyncio.sleep(5)


async def test_a_timeout_of_another_cause_passes_through(pool: ThreadPoolExecutor) -> None:
    with pytest.raises(TimeoutError):
        async with ModelThreads(pool).time_limit("the preview"):
            raise TimeoutError


async def test_work_ends_when_the_client_leaves() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def receive() -> dict[str, str]:
        await asyncio.sleep(0.02)
        return {"type": "http.disconnect"}

    with pytest.raises(InvalidRequestError, match="left"):
        await unless_client_leaves(receive, work())  # type: ignore[arg-type]
    assert ended.is_set()


async def test_work_that_ends_first_gives_its_result_or_its_error() -> None:
    async def receive() -> dict[str, str]:
        await asyncio.sleep(60)
        raise AssertionError

    async def fail() -> None:
        raise ModelUnavailableError("no model")

    assert await unless_client_leaves(receive, asyncio.sleep(0, "done")) == "done"  # type: ignore[arg-type]
    with pytest.raises(ModelUnavailableError):
        await unless_client_leaves(receive, fail())  # type: ignore[arg-type]
