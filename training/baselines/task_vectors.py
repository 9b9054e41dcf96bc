"""Task vectors: what fine-tuning changes, taken as a vector to add and subtract.

    τ = θ_ft - θ₀,    θ = θ₀ + λ Σ τ,    forgetting: -τ,    new for old: τ_new - μ τ_old

Every vector is learnt from the base model θ₀, also after other edits, and the model is always computed anew
from the saved θ₀: no rounding piles up, and a sum of zero gives θ₀ bit by bit (Ilharco et al. 2023, arXiv
2212.04089). A tied tensor is among a network's parameters once, so it moves once; a loop over its state dict
would move it twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import torch
from torch import Tensor

from serac_gateway.domain.edits import EditDraft
from training.baselines.base import EditingMethod, silent
from training.baselines.causal_model import CausalModel
from training.baselines.fitting import FitSettings, Pair, fit, pairs_of
from training.baselines.parameters import SavedParameters, chosen_parameters
from training.progress import OnProgress

TaskVector = Mapping[str, Tensor]
"""By the name of a parameter, its change."""


class TaskVectorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As in configs/baselines/task-vectors.toml."""

    parameters: tuple[str, ...]
    """Patterns over the names of parameters, see `chosen_parameters`."""
    weight: float
    """λ; chosen on held-out edits, from 0 to 1."""
    forget: float
    """μ, where edits name what was true; 0 learns no vector for that."""
    fit: FitSettings


def combined(terms: Sequence[tuple[float, TaskVector]]) -> dict[str, Tensor]:
    """The sum of vectors with factors: addition, negation (-1) and analogy (1, -1, 1)."""
    total: dict[str, Tensor] = {}
    for factor, vector in terms:
        for name, change in vector.items():
            total[name] = total[name] + factor * change if name in total else factor * change
    return total


class TaskVectors(EditingMethod):
    """A call of `edit` learns a vector and adds it to the sum."""

    name = "task-vectors"
    paper = "Ilharco et al. 2023, arXiv 2212.04089"

    def __init__(self, model: CausalModel, settings: TaskVectorSettings) -> None:
        """Raises ConfigError where a pattern of the settings matches no parameter."""
        super().__init__(model)
        self.settings = settings
        self._parameters = chosen_parameters(model, settings.parameters)
        self._base: SavedParameters | None = None
        self._sum: dict[str, Tensor] = {}

    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        """Learn the vector of all of them together, and add it.

        Raises:
            TrainingError: The loss is not finite; the model is as before the call.
        """
        vector = self.learnt(pairs_of(self.model, edits), on_progress=on_progress)
        before = [
            (self.model.prompt_text(edit.prompt), edit.target_true) for edit in edits if edit.target_true
        ]
        if self.settings.forget and before:
            forgotten = self.learnt(before, on_progress=on_progress)
            vector = combined([(1.0, vector), (-self.settings.forget, forgotten)])
        self.add(vector)

    def learnt(self, pairs: Sequence[Pair], *, on_progress: OnProgress = silent) -> dict[str, Tensor]:
        """The vector that fine-tuning the base model on pairs gives; the model stays as it is.

        Raises:
            TrainingError: The loss is not finite.
        """
        base = self._saved_base()
        base.restore()
        try:
            fit(
                self.model, list(self._parameters.values()), pairs, self.settings.fit, on_progress=on_progress
            )
            return {
                name: parameter.detach() - base.values[name] for name, parameter in self._parameters.items()
            }
        finally:
            self._apply()

    def add(self, vector: TaskVector, factor: float = 1.0) -> None:
        """Add a vector to the sum; a factor of -1 takes it away or forgets it."""
        self._sum = combined([(1.0, self._sum), (factor, vector)])
        self._apply()

    def undo(self) -> None:
        """Restore the base model and forget the sum."""
        if self._base is not None:
            self._base.restore()
        self._base, self._sum = None, {}

    @property
    def held_bytes(self) -> int:
        """The sum of the vectors, and the base model's tensors."""
        size = sum(change.nbytes for change in self._sum.values())
        return size + self._saved_base().size_bytes if size else 0

    def _saved_base(self) -> SavedParameters:
        if self._base is None:
            self._base = SavedParameters(self._parameters)
        return self._base

    @torch.no_grad()
    def _apply(self) -> None:
        self._saved_base().restore()
        for name, change in self._sum.items():
            self._parameters[name].add_(change, alpha=self.settings.weight)
