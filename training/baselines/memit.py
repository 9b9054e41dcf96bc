"""MEMIT: many facts at once, spread over several layers.

Meng, Sen Sharma, Andonian, Belinkov, Bau, "Mass-Editing Memory in a Transformer", ICLR 2023, arXiv
2210.07229. For each edit a shift δ is searched at the output of the last edited layer L (see `shifts`). Then,
from the lowest edited layer to L, each layer l writes its share of what is still missing, for all edits at
once. With K the keys of the edits at layer l (columns), M = W K what they give now, and M* what they are to
give:

    share = (δ − shift so far) / (L − l + 1)
    ΔW = (M* − M) Kᵀ (λ C + K Kᵀ)⁻¹

the least squares of new keys against λ tokens of plain text. Keys and the shift so far are read from the
model anew before each layer. λ counts tokens, so that it needs no other scale: C and K Kᵀ are both squares of
keys.

M* is not M + share: on Gemma a normalisation stands between W K and the residual stream, see `post_norms`. M*
are the outputs whose contribution is nearest to the present contribution plus share.

As in ROME a key is the mean over the contexts, and so is the shift so far.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import msgspec
import torch
from torch import Tensor
from typing_extensions import override

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from training.baselines.base import EditingMethod, silent
from training.baselines.causal_model import CausalModel
from training.baselines.key_statistics import KeyStatistics, StatisticsConfig, open_statistics
from training.baselines.post_norms import Contribution
from training.baselines.rome import cholesky
from training.baselines.shifts import EditRows, SearchConfig, edit_rows, searched_shifts, written_contexts
from training.baselines.suffixes import at_subject
from training.progress import OnProgress
from training.runs import read_config

MEMIT_CONFIG = Path("configs/baselines/memit.toml")
_SEARCHED_AT_ONCE = 8


class SpreadConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What MEMIT and AlphaEdit have in common."""

    layers: tuple[int, ...]
    """Ascending."""
    search: SearchConfig
    statistics: StatisticsConfig


class MemitConfig(SpreadConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What configs/baselines/memit.toml holds."""

    text_weight: float
    """λ: how many tokens of plain text weigh against the edits of a batch."""
    damping: float
    """Added to C's diagonal, as a share of its mean eigenvalue."""


class SpreadingMethod(EditingMethod):
    """Shifts at the last of several layers, to which each layer adds its share. How, a method says.

    Legend of shapes: E edits, D width, I inner width of the MLP.
    """

    def __init__(self, model: CausalModel, config: SpreadConfig) -> None:
        """Raises ConfigError if there are no layers, or the model lacks them, or they are not ascending."""
        super().__init__(model)
        layers = config.layers
        if not layers or list(layers) != sorted(set(layers)):
            raise ConfigError(f"layers are {list(layers)!r}; give at least one, in ascending order")
        self.layers = layers
        self._search = config.search
        self._matrices = {layer: model.value_matrix(layer) for layer in layers}
        self._contributions = {layer: Contribution(model.layers[layer]) for layer in layers}
        self._originals: dict[int, Tensor] = {}
        self.contexts: list[str] = []
        """What a prompt is read behind, "" first; after `prepare`."""

    @override
    def prepare(self, *, on_progress: OnProgress = silent) -> None:
        self.contexts = written_contexts(self.model, self._search)

    @override
    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        if not self.contexts:
            self.prepare(on_progress=on_progress)
        rows = [edit_rows(self.model, edit, self.contexts) for edit in edits]
        if not rows:
            return
        if not self._originals:
            self._originals = {at: matrix.weight.detach().clone() for at, matrix in self._matrices.items()}
        shifts_ED = self.searched_shifts(rows, on_progress=on_progress)
        _, begun_ED = self._read(rows, self.layers[-1])
        for done, layer in enumerate(self.layers):
            on_progress("layers", done, len(self.layers))
            keys_EI, states_ED = self._read(rows, layer)
            share_ED = (shifts_ED - (states_ED - begun_ED)) / (len(self.layers) - done)
            outputs_ED = keys_EI @ self._matrices[layer].weight.double().T
            contribution = self._contributions[layer]
            wanted_ED = contribution.outputs_for(contribution.of(outputs_ED) + share_ED, outputs_ED)
            update_DI = self._update(layer, keys_EI, wanted_ED - outputs_ED)
            self._matrices[layer].weight.data += update_DI.float()
        on_progress("layers", len(self.layers), len(self.layers))

    @abstractmethod
    def _update(self, layer: int, keys_EI: Tensor, residuals_ED: Tensor) -> Tensor:
        """ΔW, (D, I), for keys and what their values lack; float64."""

    def searched_shifts(self, rows: Sequence[EditRows], *, on_progress: OnProgress = silent) -> Tensor:
        """δ of each edit at the output of the last layer, (E, D), float64; changes nothing."""
        last = self.layers[-1]
        parts = []
        for begin in range(0, len(rows), _SEARCHED_AT_ONCE):
            on_progress("shifts", begin, len(rows))
            part = rows[begin : begin + _SEARCHED_AT_ONCE]
            parts.append(searched_shifts(self.model, part, self.model.layers[last], last, self._search))
        on_progress("shifts", len(rows), len(rows))
        return torch.cat(parts).double()

    def _read(self, rows: Sequence[EditRows], layer: int) -> tuple[Tensor, Tensor]:
        """Means over the contexts: keys of `layer`, (E, I), and what the last layer puts out, (E, D)."""
        flat = [row for edit in rows for row in edit.in_contexts]
        keys, states = at_subject(self.model, flat, sorted({layer, self.layers[-1]}))
        each = len(self.contexts)
        keys_EI = torch.stack([part.mean(0) for part in torch.split(keys[layer].double(), each)])
        states_RD = states[self.layers[-1]].double()
        return keys_EI, torch.stack([part.mean(0) for part in torch.split(states_RD, each)])

    @override
    def undo(self) -> None:
        for layer, original in self._originals.items():
            self._matrices[layer].weight.data.copy_(original)
        self._originals = {}

    @property
    @override
    def held_bytes(self) -> int:
        """The changed matrices, once there is an edit."""
        return sum(original.nbytes for original in self._originals.values())


class Memit(SpreadingMethod):
    """A call's edits are one batch; later batches do not know of earlier ones."""

    name: ClassVar[str] = "memit"
    paper: ClassVar[str] = "Meng et al. 2023, arXiv 2210.07229"

    def __init__(self, model: CausalModel, config: MemitConfig, statistics: KeyStatistics) -> None:
        super().__init__(model, config)
        self._config = config
        self._statistics = statistics
        self._roots: dict[int, Tensor] = {}

    @override
    def prepare(self, *, on_progress: OnProgress = silent) -> None:
        moments = self._statistics.moments(self.layers, on_progress=on_progress)
        self._roots = {at: cholesky(moment, damping=self._config.damping) for at, moment in moments.items()}
        super().prepare(on_progress=on_progress)

    @override
    def _update(self, layer: int, keys_EI: Tensor, residuals_ED: Tensor) -> Tensor:
        return least_squares(keys_EI, residuals_ED, self._roots[layer], text_weight=self._config.text_weight)


def open_memit(model: CausalModel, config: Path | None) -> Memit:
    """MEMIT with the repository's settings, or those of a file.

    Raises:
        ConfigError: The settings cannot be read, the model lacks their layers, or there is no text for C.
    """
    settings = read_config(config or MEMIT_CONFIG, MemitConfig)
    return Memit(model, settings, open_statistics(model, settings.statistics))


def least_squares(keys_EI: Tensor, residuals_ED: Tensor, root_II: Tensor, *, text_weight: float) -> Tensor:
    """ΔW = R Kᵀ (λ C + K Kᵀ)⁻¹, (D, I); `root_II` is C's lower Cholesky factor, λ > 0. All float64.

    By R (λ 1 + Kᵀ C⁻¹ K)⁻¹ Kᵀ C⁻¹, which is the same, and solves for as many unknowns as there are edits.
    """
    whitened_IE = torch.cholesky_solve(keys_EI.T, root_II)
    gram_EE = keys_EI @ whitened_IE
    gram_EE.diagonal().add_(text_weight)
    update_DI: Tensor = residuals_ED.T @ torch.linalg.solve(gram_EE, whitened_IE.T)
    return update_DI
