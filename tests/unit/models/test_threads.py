"""Items of a worker thread on the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import pytest

from serac_gateway.models.language_models.threads import ThreadItems


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_items_come_in_order_and_end(pool: ThreadPoolExecutor) -> None:
    items = ThreadItems(pool, lambda cancelled: iter(range(100)))
    assert [item async for item in items] == list(range(100))
    assert [item async for item in items] == []


async def test_an_error_of_the_thread_is_raised_after_the_items_before_it(pool: ThreadPoolExecutor) -> None:
    def produce(cancelled: Callable[[], bool]) -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    items = ThreadItems(pool, produce)
    assert await anext(items) == 1
    with pytest.raises(ValueError, match="broken"):
        await anext(items)
    assert await anext(items, None) is None


async def test_closing_cancels_work_that_has_begun_and_work_that_waits(pool: ThreadPoolExecutor) -> None:
    begun, ended, waiting_ran = threading.Event(), threading.Event(), threading.Event()

    def produce(cancelled: Callable[[], bool]) -> Iterator[int]:
        begun.set()
        while not cancelled():
            yield 0
        ended.set()

    def wait_in_queue(cancelled: Callable[[], bool]) -> Iterator[int]:
        waiting_ran.set()
        yield 0

    async with aclosing(ThreadItems(pool, produce)) as items:
        assert await anext(items) == 0
        async with aclosing(ThreadItems(pool, wait_in_queue)):
            assert begun.is_set()
    assert await asyncio.to_thread(ended.wait, 5)
    pool.shutdown()
    assert not waiting_ran.is_set()


async def test_a_wait_that_is_cancelled_loses_no_item(pool: ThreadPoolExecutor) -> None:
    goes_on = threading.Event()

    def produce(cancelled: Callable[[], bool]) -> Iterator[int]:
        goes_on.wait(5)
        yield 1

    async with aclosing(ThreadItems(pool, produce)) as items:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(items)
        goes_on.set()
        assert await anext(items) == 1
