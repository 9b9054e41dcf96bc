"""Batches that become smaller where memory runs out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from training.evaluation.answers.methods.batches import Batches
from training.runs import TrainingError


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_a_batch_that_does_not_fit_is_halved(error: Exception) -> None:
    """All items are worked on, in order, and later batches begin with the size that fits."""
    sizes: list[int] = []

    def work(part: Sequence[int]) -> list[int]:
        sizes.append(len(part))
        if len(part) > 2:
            raise error
        return [-item for item in part]

    batches = Batches(8)
    assert batches.over(range(7), work) == [0, -1, -2, -3, -4, -5, -6]
    assert sizes == [7, 4, 2, 2, 2, 1]
    assert batches.at_once == 2


def test_too_little_memory_for_a_single_item_says_what_to_do() -> None:
    """The message names the remedies."""

    def work(part: Sequence[int]) -> list[int]:
        raise MemoryError

    with pytest.raises(TrainingError, match=r"one text at a time.*--model"):
        Batches(4).over([1, 2], work)


def test_other_errors_pass() -> None:
    """A fault of the work is no lack of memory."""

    def work(part: Sequence[int]) -> list[int]:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Batches(4).over([1, 2], work)
