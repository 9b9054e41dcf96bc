"""MEND (Mitchell et al., ICLR 2022, arXiv 2110.11309): a network that rewrites gradients, token by token.

The loss of an edit has at a weight W the gradient ∇L = Σ_t δ_t u_tᵀ. Both factors of every token go through

    z = [norm(u) ; norm(δ)]                      norm: running mean and deviation of the training edits
    z := z + s ⊙ relu(z A B + b) + o             twice, A and B of low rank
    [ũ ; δ̃] = z,      W := W − lr Σ_t δ̃_t ũ_tᵀ

The network is shared by weights of one shape; s, o and the learnt rate lr are of each weight alone. s and o
begin at 0, so without norm it begins as plain gradient descent. It is trained by

    c_edit · −log p(target | paraphrase, edited)  +  c_loc · KL(base ‖ edited) on an unrelated prompt

Differences to the published code: that adds lr · ∇L, so that an edit raises the loss until the sign is
learnt; its rank is 1,920, which for Gemma's MLPs alone are 41M parameters. The changes of several edits, each
for the weights before, are summed, as there. ΔW has at most as many ranks as the edits have tokens.
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
from training.baselines.hyper_network import WEIGHTS_FILE, HyperEditor, HyperNetwork, edited_linears, seeded
from training.baselines.hyper_training import HyperTrainingSettings
from training.baselines.target_gradients import OuterProducts


class MendSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `configs/baselines/mend.toml`."""

    layers: tuple[int, ...]
    matrices: tuple[str, ...] = ("up_proj", "down_proj")
    rank: int = 64
    normalised: bool = True
    edit_rate: float = 1e-4
    """Where the learnt rates lr begin."""
    run: str = "runs/mend"
    """The folder that `serac-train baseline mend` writes."""
    training: HyperTrainingSettings = HyperTrainingSettings()


class RunningNorm(nn.Module):
    """Takes off the mean and divides by the deviation of all vectors observed; of none: changes nothing."""

    count: Tensor
    mean_D: Tensor
    squares_D: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean_D", torch.zeros(width))
        self.register_buffer("squares_D", torch.zeros(width))

    @torch.no_grad()
    def observe(self, vectors_TD: Tensor) -> None:
        """By Welford's rule, vector by vector (rows of zeros are no edited tokens)."""
        for vector_D in vectors_TD[vectors_TD.any(-1)]:
            self.count += 1
            off_D = vector_D - self.mean_D
            self.mean_D += off_D / self.count
            self.squares_D += off_D * (vector_D - self.mean_D)

    @override
    def forward(self, vectors_TD: Tensor) -> Tensor:
        if self.count < 2:
            return vectors_TD
        deviation_D = (self.squares_D / (self.count - 1)).sqrt()
        return (vectors_TD - self.mean_D) / deviation_D.clamp(min=1e-7)


class GradientTransform(nn.Module):
    """Two residual layers of low rank, shared by the weights of one shape."""

    def __init__(self, width: int, rank: int, weights: int) -> None:
        """`width` is that of u and δ together; `weights` how many have a scale and an offset of their own."""
        super().__init__()
        self.down_DR = nn.ParameterList(torch.randn(width, rank) / width**0.5 for _ in range(2))
        self.up_RD = nn.ParameterList(torch.randn(rank, width) / rank**0.5 for _ in range(2))
        self.bias_D = nn.ParameterList(torch.zeros(width) for _ in range(2))
        self.scale_WD = nn.ParameterList(torch.zeros(weights, width) for _ in range(2))
        self.offset_WD = nn.ParameterList(torch.zeros(weights, width) for _ in range(2))

    def forward(self, z_TD: Tensor, weight: int) -> Tensor:
        """The tokens' factors (T, width) of the weight of that number."""
        layers = zip(self.down_DR, self.up_RD, self.bias_D, self.scale_WD, self.offset_WD, strict=True)
        for down, up, bias, scale, offset in layers:
            z_TD = z_TD + scale[weight] * (z_TD @ down @ up + bias).relu() + offset[weight]
        return z_TD


class MendNetwork(HyperNetwork):
    """Transforms, norms and rates of all edited weights."""

    def __init__(self, linears: Mapping[str, nn.Linear], settings: MendSettings) -> None:
        super().__init__()
        self._paths = list(linears)
        self._normalised = settings.normalised
        shapes = [tuple(linear.weight.shape) for linear in linears.values()]
        self._keys = ["x".join(map(str, shape)) for shape in shapes]
        self.transforms = nn.ModuleDict({
            key: GradientTransform(sum(shape), settings.rank, len(linears))
            for key, shape in dict(zip(self._keys, shapes, strict=True)).items()
        })  # fmt: skip
        self.input_norms = nn.ModuleList(RunningNorm(shape[1]) for shape in shapes)
        self.delta_norms = nn.ModuleList(RunningNorm(shape[0]) for shape in shapes)
        self.rates_W = nn.Parameter(torch.full((len(linears),), settings.edit_rate))

    @override
    def observe(self, gradients: Mapping[str, OuterProducts]) -> None:
        """Take both factors into the running statistics."""
        for input_norm, delta_norm, path in zip(self.input_norms, self.delta_norms, self._paths, strict=True):
            assert isinstance(input_norm, RunningNorm)
            assert isinstance(delta_norm, RunningNorm)
            input_norm.observe(gradients[path].inputs_TI)
            delta_norm.observe(gradients[path].deltas_TO)

    @override
    def changes(self, edit: EditDraft, gradients: Mapping[str, OuterProducts]) -> dict[str, Tensor]:
        """−lr Σ_t δ̃_t ũ_tᵀ of each weight, over the tokens with a gradient."""
        return {path: self._change(number, gradients[path]) for number, path in enumerate(self._paths)}

    def _change(self, number: int, gradient: OuterProducts) -> Tensor:
        has_gradient_T = gradient.deltas_TO.any(-1)
        inputs_TI, deltas_TO = gradient.inputs_TI[has_gradient_T], gradient.deltas_TO[has_gradient_T]
        width = inputs_TI.shape[1]
        if self._normalised:
            inputs_TI, deltas_TO = self.input_norms[number](inputs_TI), self.delta_norms[number](deltas_TO)
        z_TD = self.transforms[self._keys[number]](torch.cat([inputs_TI, deltas_TO], -1), number)
        change: Tensor = -self.rates_W[number] * z_TD[:, width:].T @ z_TD[:, :width]
        return change


class Mend(HyperEditor):
    """Edits by transformed gradients; several edits at once are one step."""

    name = "mend"
    paper = "Mitchell et al., 2022, arXiv 2110.11309"

    def __init__(self, model: CausalModel, settings: MendSettings, *, trained: bool = True) -> None:
        """`trained`: with the weights of `settings.run`; else as the network begins.

        Raises:
            ConfigError: The model has no such layers.
        """
        linears = edited_linears(model, settings.layers, settings.matrices)
        with seeded(settings.training.seed):
            network = MendNetwork(linears, settings)
        weights = Path(settings.run) / WEIGHTS_FILE if trained else None
        super().__init__(model, network, linears, weights=weights)
