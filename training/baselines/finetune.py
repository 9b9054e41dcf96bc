"""Fine-tuning on the edits, five ways: which parameters, which loss, how far.

    θ ← Adam(θ, ∇_θ L(θ)),  then for the constrained ones  θ ← clamp(θ, θ₀ - ε, θ₀ + ε)

L is one of the two losses of fitting.py. The clamp is the projection onto ‖θ - θ₀‖∞ ≤ ε (Zhu et al. 2020). θ₀
is the model before the first edit, so the bound holds for all edits together. Published ε are absolute, of
models with other weights; here ε is a share of the root mean square of each tensor.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch

from serac_gateway.domain.edits import EditDraft
from training.baselines.base import EditingMethod, silent
from training.baselines.causal_model import CausalModel
from training.baselines.fitting import FitSettings, fit, pairs_of
from training.baselines.parameters import SavedParameters, chosen_parameters
from training.baselines.preserving import PreserveSettings, preserving
from training.progress import OnProgress


class FineTuningSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As in configs/baselines/ft-*.toml."""

    parameters: tuple[str, ...]
    """Patterns over the names of parameters, see `chosen_parameters`."""
    fit: FitSettings
    max_change: float | None = None
    """ε as a share of each tensor's root mean square before the first edit; None: no bound."""
    preserve: PreserveSettings | None = None
    """None: nothing but the targets has a loss."""


class FineTuning(EditingMethod):
    """What the five have in common; their settings make them what they are."""

    def __init__(self, model: CausalModel, settings: FineTuningSettings) -> None:
        """Raises ConfigError where a pattern of the settings matches no parameter."""
        super().__init__(model)
        self.settings = settings
        self._parameters = chosen_parameters(model, settings.parameters)
        self._saved: SavedParameters | None = None

    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        """Go over all of them together, epoch by epoch.

        Raises:
            TrainingError: The loss is not finite; `undo` restores the model.
            ConfigError: There is no plain text to preserve.
        """
        if self._saved is None:
            self._saved = SavedParameters(self._parameters)
        beside = preserving(self.model, edits, self.settings.preserve, on_progress=on_progress)
        fit(
            self.model, list(self._parameters.values()), pairs_of(self.model, edits), self.settings.fit,
            beside=beside, after_step=self._clamp, on_progress=on_progress,
        )  # fmt: skip

    def undo(self) -> None:
        """Restore the parameters' saved values."""
        if self._saved is not None:
            self._saved.restore()
            self._saved = None

    @property
    def held_bytes(self) -> int:
        """The changed tensors whole; Adam's state is gone with each call."""
        return 0 if self._saved is None else self._saved.size_bytes

    def bound(self, name: str) -> float:
        """ε of a tensor; infinite without a constraint."""
        if self.settings.max_change is None:
            return float("inf")
        before = self._saved.values[name] if self._saved else self._parameters[name]
        return self.settings.max_change * before.square().mean().sqrt().item()

    @torch.no_grad()
    def _clamp(self) -> None:
        if self.settings.max_change is None or self._saved is None:
            return
        for name, before in self._saved.values.items():
            bound = self.bound(name)
            self._parameters[name].clamp_(before - bound, before + bound)


class FullFineTuning(FineTuning):
    """All parameters, the tied embeddings too."""

    name = "ft-all"
    paper = "the unconstrained baseline of Zhu et al. 2020, arXiv 2012.00363"


class LastLayersFineTuning(FineTuning):
    """Everything in the last layers."""

    name = "ft-last"
    paper = "the unconstrained baseline of Zhu et al. 2020, arXiv 2012.00363"


class PromptEndFineTuning(FineTuning):
    """FT-L: an early MLP within ε, all of the target scored at the prompt's end."""

    name = "ft-l"
    paper = "Zhu et al. 2020, arXiv 2012.00363, as in Meng et al. 2022, arXiv 2202.05262"


class ConstrainedFineTuning(FineTuning):
    """FT-C: a value matrix within ε, loss on the target's tokens."""

    name = "ft-c"
    paper = "Zhu et al. 2020, arXiv 2012.00363"


class TargetFineTuning(FineTuning):
    """FT-M: one late MLP without a bound, loss on the target's tokens."""

    name = "ft-m"
    paper = "Zhang et al. 2024, arXiv 2401.01286"
