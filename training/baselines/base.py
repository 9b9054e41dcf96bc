"""What an editing method is: it takes edits one after another, and can undo all of them exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from serac_gateway.domain.edits import EditDraft
from training.baselines.causal_model import CausalModel
from training.progress import OnProgress


def silent(part: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Which network continues which text, to answer a query."""

    model: CausalModel
    text: str


class EditingMethod(ABC):
    """A method applied to a model. Those that change weights change the model they were given, in place."""

    name: ClassVar[str]
    """As on the command line: "rome"."""
    paper: ClassVar[str]
    """Authors, year, arXiv number."""

    def __init__(self, model: CausalModel) -> None:
        self.model = model

    def prepare(self, *, on_progress: OnProgress = silent) -> None:  # noqa: B027 - most need nothing
        """Compute what is needed once for the model (statistics, hyper-networks); kept over `undo`.

        Timed apart from the edits.
        """

    @abstractmethod
    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        """Make these edits, on top of the earlier ones; a batch where the method has batches.

        Raises:
            TrainingError: An edit lacks what the method needs (a subject in its prompt); none is made then.
        """

    @abstractmethod
    def undo(self) -> None:
        """Take all edits back: parameters, buffers and hooks are bit by bit as before the first."""

    def prompt_text(self, query: str) -> str:
        """What the model reads for a query; methods that edit by context put the edit before it."""
        return self.model.prompt_text(query)

    def close(self) -> None:  # noqa: B027 - most have none
        """Release what outlives the edits: processes, sockets. Nothing is called after it."""

    def reading(self, query: str) -> Reading:
        """What answers a query; methods with a network beside the edited model may choose that."""
        return Reading(model=self.model, text=self.prompt_text(query))

    def answers(
        self, queries: Sequence[str], *, max_tokens: int = 24, at_once: int = 8, several_lines: bool = False
    ) -> list[str]:
        """What each query is answered, greedily, in order; see `CausalModel.greedy`."""
        readings = [self.reading(query) for query in queries]
        texts = [""] * len(readings)
        for model in {id(reading.model): reading.model for reading in readings}.values():
            own = [place for place, reading in enumerate(readings) if reading.model is model]
            replies = model.greedy(
                [readings[place].text for place in own],
                max_tokens=max_tokens,
                at_once=at_once,
                several_lines=several_lines,
            )
            for place, reply in zip(own, replies, strict=True):
                texts[place] = reply
        return texts

    @property
    @abstractmethod
    def held_bytes(self) -> int:
        """What has to be kept for the edits made: changed matrices, adapters, codebooks, texts."""
