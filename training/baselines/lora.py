"""LoRA: low-rank matrices beside frozen ones, fitted to the edits (Hu et al. 2021, arXiv 2106.09685).

    W x  →  W x + (α/r) · B A x,    A of shape (r, in), B of shape (out, r), B = 0 at first

Only A and B descend, on the loss on the targets' tokens. The adapters can be merged, W' = W + (α/r) · B A,
and taken out again: merging keeps a copy of W and unmerging puts it back, because W' - (α/r) · B A is not W
to the bit. EasyEdit names this method AdaLoRA but never calls its rank allocation, so it is LoRA, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer, LoraModel
from torch import nn

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from training.baselines.base import EditingMethod, silent
from training.baselines.causal_model import CausalModel
from training.baselines.fitting import FitSettings, fit, pairs_of
from training.baselines.parameters import SavedParameters
from training.baselines.preserving import PreserveSettings, preserving
from training.progress import OnProgress

_ADAPTER = "edits"


class LoraSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As in configs/baselines/lora.toml."""

    modules: tuple[str, ...]
    """Last parts of the names of linear modules, such as "q_proj"."""
    layers: tuple[int, ...] | None = None
    """None: all."""
    rank: int
    alpha: float
    merged: bool
    """Whether the adapters are merged after each call of `edit`."""
    fit: FitSettings
    preserve: PreserveSettings | None = None
    """None: nothing but the targets has a loss."""
    seed: int = 13
    """Of A's first values."""


class LoraEditing(EditingMethod):
    """Further edits descend from the adapters that the earlier ones left."""

    name = "lora"
    paper = "Hu et al. 2021, arXiv 2106.09685"

    def __init__(self, model: CausalModel, settings: LoraSettings) -> None:
        """Raises ConfigError for tied embeddings or a head among the modules, which merging would untie."""
        super().__init__(model)
        self.settings = settings
        tied = (model.network.get_input_embeddings(), model.network.get_output_embeddings())
        for name, module in model.network.named_modules():
            if module in tied and name.split(".")[-1] in settings.modules:
                raise ConfigError(
                    f"LoRA cannot be put on {name!r}: embeddings and head of {model.name!r} share a tensor, "
                    "and a merge would change both or untie them; name attention or MLP matrices"
                )
        self._lora: LoraModel | None = None
        self._merged: SavedParameters | None = None

    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        """Fit the adapters to all of them together, epoch by epoch.

        Raises:
            TrainingError: The loss is not finite; `undo` restores the model.
            ConfigError: There is no plain text to preserve.
        """
        self.unmerge()
        beside = preserving(self.model, edits, self.settings.preserve, on_progress=on_progress)
        self.attach()
        fit(
            self.model, self._adapter_weights(), pairs_of(self.model, edits), self.settings.fit,
            beside=beside, on_progress=on_progress,
        )  # fmt: skip
        if self.settings.merged:
            self.merge()

    def attach(self) -> None:
        """Put adapters with B = 0 beside the matrices, which changes no output; none is put on twice.

        Raises:
            ConfigError: No module has one of the names.
        """
        if self._lora is not None:
            return
        config = LoraConfig(
            r=self.settings.rank, lora_alpha=self.settings.alpha, lora_dropout=0.0,
            target_modules=list(self.settings.modules),
            layers_to_transform=None if self.settings.layers is None else list(self.settings.layers),
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            try:
                self._lora = LoraModel(self.model.network, {_ADAPTER: config}, _ADAPTER)
            except ValueError as exc:
                raise ConfigError(
                    f"{self.model.name!r} has no modules {self.settings.modules!r}: {exc}"
                ) from exc
        self.model.network.eval().requires_grad_(False)

    @torch.no_grad()
    def merge(self) -> None:
        """Add every adapter's product to a matrix, and switch the adapters off."""
        if self._lora is None or self._merged is not None:
            return
        layers = self._adapted_layers()
        self._merged = SavedParameters({name: layer.base_layer.weight for name, layer in layers.items()})
        for layer in layers.values():
            layer.base_layer.weight += layer.get_delta_weight(_ADAPTER)
            layer.enable_adapters(False)
        self.model.network.requires_grad_(False)

    def unmerge(self) -> None:
        """Put the saved matrices back, bit by bit, and switch the adapters on."""
        if self._merged is None:
            return
        self._merged.restore()
        self._merged = None
        for layer in self._adapted_layers().values():
            layer.enable_adapters(True)
        self.model.network.requires_grad_(False)

    def undo(self) -> None:
        """Take the adapters away; the matrices beside them were never changed, or are restored."""
        self.unmerge()
        if self._lora is not None:
            self._lora.unload()
            self._lora = None
        self.model.network.eval().requires_grad_(False)

    @property
    def held_bytes(self) -> int:
        """The adapters' A and B."""
        return 0 if self._lora is None else sum(weight.nbytes for weight in self._adapter_weights())

    def _adapted_layers(self) -> dict[str, Any]:
        """The linear modules with an adapter, which peft does not type."""
        return {
            name: module
            for name, module in self.model.network.named_modules()
            if isinstance(module, LoraLayer)
        }

    def _adapter_weights(self) -> list[nn.Parameter]:
        weights: list[nn.Parameter] = []
        for layer in self._adapted_layers().values():
            weights += [layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight]
        return weights
