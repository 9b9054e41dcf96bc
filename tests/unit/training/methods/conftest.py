"""A tiny model, cases to edit it with, and a method whose effect is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch
from typing_extensions import override

from serac_gateway.domain.edits import EditDraft
from tests.tiny_language_models import tiny_gemma, tiny_tokenizer
from training.baselines.base import EditingMethod, silent
from training.baselines.causal_model import CausalModel
from training.benchmarks.base import Benchmark, Case, Role, fact, probes
from training.progress import OnProgress
from training.runs import TrainingError

PLACES = ("Oru", "Ketti", "Moss", "Vala", "Brenn", "Silmar")


def place_case(number: int, place: str) -> Case:
    return fact(
        f"place-{number}",
        prompt=f"The mayor of {place} is",
        target_new=f"Person {number}",
        target_true=f"Elder {number}",
        subject=place,
        probes=(
            *probes("rephrase", [f"{place} has the mayor"], in_scope=True),
            *probes("neighbour", ["The mayor of Paris is"], in_scope=False, answers=["Ann"]),
        ),
        entailed=probes("one_hop", [f"The wife of {place}'s mayor is"], in_scope=True, answers=["Halden"]),
    )


class Shifting(EditingMethod):
    """Each edit adds to the last norm; by the options it forgets to undo, or refuses an edit."""

    name: ClassVar[str] = "shifting"
    paper: ClassVar[str] = "a fake"
    forgets: bool = False
    refuses: str = ""

    def __init__(self, model: CausalModel) -> None:
        super().__init__(model)
        self.calls: list[list[str | None]] = []
        self._original: torch.Tensor | None = None

    @override
    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        if any(edit.id == self.refuses for edit in edits):
            raise TrainingError("no subject")
        self.calls.append([edit.id for edit in edits])
        weight = self.model.network.model.norm.weight
        if self._original is None:
            self._original = weight.detach().clone()
        generator = torch.Generator().manual_seed(len(edits[0].prompt) + int(str(edits[0].id)[-1]))
        weight.data += 9 * torch.randn(weight.shape, generator=generator)

    @override
    def undo(self) -> None:
        if self._original is not None and not self.forgets:
            self.model.network.model.norm.weight.data.copy_(self._original)
        self._original = None

    @property
    @override
    def held_bytes(self) -> int:
        return 0 if self._original is None else self._original.nbytes


@pytest.fixture
def benchmark_of_places() -> Benchmark:
    cases = tuple(place_case(number, place) for number, place in enumerate(PLACES))
    return Benchmark(name="places", role=Role.VALIDATION, cases=cases)


@pytest.fixture
def model() -> CausalModel:
    tokenizer = tiny_tokenizer()
    return CausalModel(tiny_gemma(tokenizer), tokenizer, name="tiny-gemma")
