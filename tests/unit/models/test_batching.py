"""Batches gather by themselves: while one is computed, the calls of other threads wait for the next."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from serac_gateway.models.batching import SharedBatches


class Device:
    """Doubles numbers, a batch at a time; the first waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.free = threading.Event(), threading.Event()
        self.running = 0

    def compute(self, items: Sequence[int]) -> list[int]:
        self.running += 1
        assert self.running == 1
        self.batches.append(list(items))
        self.begun.set()
        self.free.wait(5)
        if 13 in items:
            self.running -= 1
            raise RuntimeError("13")
        self.running -= 1
        return [2 * item for item in items]


def test_calls_that_come_meanwhile_are_one_batch() -> None:
    device = Device()
    batches = SharedBatches(device.compute, most=64)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batches.run, [1])
        device.begun.wait(5)
        others = [pool.submit(batches.run, [number, number + 1]) for number in range(10, 50, 10)]
        while len(batches._waiting) < len(others):
            pass
        device.free.set()
        assert first.result(5) == [2]
        for number, other in zip(range(10, 50, 10), others, strict=True):
            assert other.result(5) == [2 * number, 2 * number + 2]
    assert [len(batch) for batch in device.batches] == [1, 8]


def test_a_batch_is_bounded_and_a_larger_call_is_computed_alone() -> None:
    device = Device()
    device.free.set()
    batches = SharedBatches(device.compute, most=3)
    assert batches.run(list(range(20, 30))) == list(range(40, 60, 2))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(batches.run, [[number, number] for number in range(100, 200)]))
    assert results == [[2 * number, 2 * number] for number in range(100, 200)]
    assert max(len(batch) for batch in device.batches[1:]) <= 3
    assert batches.run([]) == []


def test_a_failure_is_that_of_its_batch_alone() -> None:
    device = Device()
    device.free.set()
    batches = SharedBatches(device.compute, most=64)
    with pytest.raises(RuntimeError, match="13"):
        batches.run([13])
    assert batches.run([1]) == [2]
