"""A tiny Gemma, and a method that fits one matrix of it to the edits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from typing_extensions import override

from serac_gateway.domain.edits import EditDraft
from tests.tiny_language_models import tiny_gemma, tiny_tokenizer
from training.baselines.base import EditingMethod, silent
from training.baselines.causal_model import CausalModel
from training.consolidation.recipes import Recipe
from training.progress import OnProgress


class FittedMatrices(EditingMethod):
    """Adam on all value matrices until the targets are learnt."""

    name = "fitted"
    paper = "none"

    def __init__(self, model: CausalModel, *, rate: float = 3e-2) -> None:
        super().__init__(model)
        self.weights = [model.value_matrix(layer).weight for layer in range(len(model.layers))]
        self.rate = rate
        self.saved = [weight.detach().clone() for weight in self.weights]
        self.edits: list[EditDraft] = []

    @override
    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        self.edits += edits
        for weight in self.weights:
            weight.requires_grad_(True)
        optimizer = torch.optim.Adam(self.weights, lr=self.rate)
        pairs = [(self.prompt_text(edit.prompt), edit.target_new) for edit in edits]
        for _ in range(60):
            loss = -torch.cat(self.model.target_log_probs(pairs)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if loss.item() < 0.02:
                break
        for weight in self.weights:
            weight.requires_grad_(False)
            weight.grad = None

    @override
    def undo(self) -> None:
        for weight, saved in zip(self.weights, self.saved, strict=True):
            weight.data.copy_(saved)

    @property
    @override
    def held_bytes(self) -> int:
        return sum(saved.nbytes for saved in self.saved)


@pytest.fixture
def new_model() -> Callable[[], CausalModel]:
    """The same tiny model, again and again."""

    def made() -> CausalModel:
        tokenizer = tiny_tokenizer()
        return CausalModel(tiny_gemma(tokenizer), tokenizer, name="tiny-gemma")

    return made


@pytest.fixture
def opened() -> list[FittedMatrices]:
    """The methods that the recipe opened."""
    return []


@pytest.fixture
def recipe(opened: list[FittedMatrices]) -> Recipe:
    """The method as a recipe."""

    def opens(model: CausalModel, settings: Path | None) -> EditingMethod:
        opened.append(FittedMatrices(model))
        return opened[-1]

    return Recipe(opens=opens, settings=Path("none.toml"), needs_subject=False, trains_wordings=True)
