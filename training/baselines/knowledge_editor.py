"""KnowledgeEditor (De Cao et al., EMNLP 2021, arXiv 2104.08164): a network that reads the edit and gates ∇L.

A bidirectional LSTM reads prompt, old target (where known) and new target, each after a beginning token, by
the model's own embeddings, frozen. From its last states linear maps give for each weight W of shape (O, I)
the vectors α, β of width O and γ, δ of width I, and a number η:

    W := W + σ(η) ( softmax(α) γᵀ ⊙ ∇L  +  softmax(β) δᵀ )

Trained by

    −log p(target | paraphrase, edited) + λ ( KL(base ‖ edited) − m )

with λ raised where the constraint is broken and lowered where it is kept, and never below 0.

Differences to the published code: it edits all matrices of BART but the embeddings, here the MLPs of a few
layers; ∇L is divided by its norm, so that γ has no unit; the network is smaller. Edits are summed as in MEND.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn
from typing_extensions import override

from serac_gateway.domain.edits import EditDraft
from training.baselines.causal_model import CausalModel
from training.baselines.hyper_network import (
    WEIGHTS_FILE,
    HyperEditor,
    HyperNetwork,
    edited_linears,
    seeded,
)
from training.baselines.hyper_training import HyperTrainingSettings
from training.baselines.target_gradients import OuterProducts


class KnowledgeEditorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `configs/baselines/ke.toml`."""

    layers: tuple[int, ...]
    matrices: tuple[str, ...] = ("up_proj", "down_proj")
    hidden: int = 64
    """Width of the LSTM in each direction."""
    condition: int = 128
    """Width of what the maps get."""
    gate_start: float = -3.0
    """Where η begins: with a small σ(η), so that training begins near the base model."""
    run: str = "runs/ke"
    """The folder that `serac-train baseline ke` writes."""
    training: HyperTrainingSettings = HyperTrainingSettings()


class Gate(nn.Module):
    """The five maps of one weight."""

    def __init__(self, condition: int, outputs: int, inputs: int, gate_start: float) -> None:
        super().__init__()
        self.alpha = nn.Linear(condition, outputs)
        self.beta = nn.Linear(condition, outputs)
        self.gamma = nn.Linear(condition, inputs)
        self.delta = nn.Linear(condition, inputs)
        self.eta = nn.Linear(condition, 1)
        nn.init.zeros_(self.delta.weight)  # no offset until it is learnt
        nn.init.zeros_(self.delta.bias)
        nn.init.constant_(self.gamma.bias, -float(outputs))  # softmax(α) is 1/O: one step of gradient descent
        nn.init.constant_(self.eta.bias, gate_start)

    def shares(self, condition_D: Tensor) -> tuple[Tensor, Tensor]:
        """softmax(α) and softmax(β), (O,) each."""
        return self.alpha(condition_D).softmax(-1), self.beta(condition_D).softmax(-1)

    def forward(self, condition_D: Tensor, gradient_OI: Tensor) -> Tensor:
        """ΔW."""
        alpha_O, beta_O = self.shares(condition_D)
        gate_OI = alpha_O[:, None] * self.gamma(condition_D)
        offset_OI = beta_O[:, None] * self.delta(condition_D)
        change: Tensor = self.eta(condition_D).sigmoid() * (gate_OI * gradient_OI + offset_OI)
        return change


class KnowledgeEditorNetwork(HyperNetwork):
    """The reader of edits, and a gate for each edited weight."""

    def __init__(
        self, model: CausalModel, linears: Mapping[str, nn.Linear], settings: KnowledgeEditorSettings
    ) -> None:
        super().__init__()
        self._model = model  # no module, so its parameters are not this network's
        self._paths = list(linears)
        shapes = [tuple(linear.weight.shape) for linear in linears.values()]
        width = model.network.get_input_embeddings().embedding_dim
        self.reader = nn.LSTM(width, settings.hidden, bidirectional=True, batch_first=True)
        self.condition = nn.Linear(2 * settings.hidden, settings.condition)
        self.gates = nn.ModuleList(
            Gate(settings.condition, outputs, inputs, settings.gate_start) for outputs, inputs in shapes
        )

    def read(self, edit: EditDraft) -> Tensor:
        """What the maps get of an edit, (condition,)."""
        parts = (edit.prompt, edit.target_true, edit.target_new)
        ids = [token for part in parts if part for token in self._model.prompt_ids(part)]
        embedded_LD = self._model.network.get_input_embeddings()(torch.tensor(ids)).detach()
        embedded_LD = embedded_LD / embedded_LD.norm(dim=-1, keepdim=True).mean()  # whatever their scale
        _, (last_2H, _) = self.reader(embedded_LD)
        condition_D: Tensor = self.condition(last_2H.flatten()).tanh()
        return condition_D

    @override
    def changes(self, edit: EditDraft, gradients: Mapping[str, OuterProducts]) -> dict[str, Tensor]:
        """σ(η) (softmax(α) γᵀ ⊙ ∇L/‖∇L‖ + softmax(β) δᵀ) of each weight."""
        condition_D = self.read(edit)
        changes: dict[str, Tensor] = {}
        for path, gate in zip(self._paths, self.gates, strict=True):
            gradient_OI = gradients[path].summed()
            changes[path] = gate(condition_D, gradient_OI / gradient_OI.norm().clamp(min=1e-12))
        return changes


class KnowledgeEditor(HyperEditor):
    """Edits by gated gradients."""

    name = "ke"
    paper = "De Cao et al., 2021, arXiv 2104.08164"

    def __init__(
        self, model: CausalModel, settings: KnowledgeEditorSettings, *, trained: bool = True
    ) -> None:
        """`trained`: with the weights of `settings.run`; else as the network begins.

        Raises:
            ConfigError: The model has no such layers.
        """
        linears = edited_linears(model, settings.layers, settings.matrices)
        with seeded(settings.training.seed):
            network = KnowledgeEditorNetwork(model, linears, settings)
        weights = Path(settings.run) / WEIGHTS_FILE if trained else None
        super().__init__(model, network, linears, weights=weights)
