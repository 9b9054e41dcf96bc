"""Work in batches that become smaller where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from training.runs import TrainingError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
"""How CUDA, torch's allocator of the CPU and the system say it; torch raises a RuntimeError."""


class Batches:
    """Gives a function its items a few at a time."""

    def __init__(self, at_once: int) -> None:
        """`at_once` items to begin with."""
        self.at_once = at_once

    def over(
        self, items: Sequence[ItemT], work: Callable[[Sequence[ItemT]], Sequence[ResultT]]
    ) -> list[ResultT]:
        """The results of all items, in order.

        Raises:
            TrainingError: There is not enough memory for a single item.
        """
        results: list[ResultT] = []
        while len(results) < len(items):
            part = items[len(results) : len(results) + self.at_once]
            try:
                results += work(part)
            except (MemoryError, RuntimeError) as exc:
                if not is_out_of_memory(exc):
                    raise
                if self.at_once == 1:
                    raise TrainingError(
                        "memory ran out with one text at a time; end other processes, or give a smaller"
                        " --model, shorter texts or fewer --edits"
                    ) from exc
                self.at_once //= 2
        return results


def is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether it says that memory ran out."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)
