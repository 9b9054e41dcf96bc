"""AlphaEdit: MEMIT's update, kept inside the directions that plain text hardly uses.

Fang et al., "AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models", ICLR 2025, arXiv
2410.02355. With P the projector on the eigenvectors of C = E[k kᵀ] with small eigenvalues, K the keys of the
edits, K_p the keys of all earlier edits, and R what the values of K lack (equation 11):

    ΔW = R Kᵀ P (K_p K_pᵀ P + K Kᵀ P + r 1)⁻¹

so that ΔW k = 0 for every key k that P maps to 0, and outputs of earlier edits are held by their weight in
the sum. With P = U Uᵀ it is R Kᵀ U (Uᵀ (K_p K_pᵀ + K Kᵀ) U + r 1)⁻¹ Uᵀ; here it is solved for as many
unknowns as there are edits so far.

The published threshold, eigenvalues below .02, and ridge r = 10 belong to one model's keys. Here the small
eigenvalues are those that together hold a share of C's trace, and r is a multiple of C's mean eigenvalue.
Shifts, layers and shares are MEMIT's (see `memit`).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from training.baselines.base import silent
from training.baselines.causal_model import CausalModel
from training.baselines.key_statistics import KeyStatistics, open_statistics
from training.baselines.memit import SpreadConfig, SpreadingMethod
from training.progress import OnProgress
from training.runs import read_config

ALPHAEDIT_CONFIG = Path("configs/baselines/alphaedit.toml")


class AlphaEditConfig(SpreadConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What configs/baselines/alphaedit.toml holds."""

    free_share: float
    """Share of C's trace that the eigenvectors open to edits hold together, the smallest first; 0 to 1."""
    ridge: float
    """r, as a multiple of C's mean eigenvalue."""


class AlphaEdit(SpreadingMethod):
    """A call's edits are one batch; their keys are held on to by later batches, until `undo`."""

    name: ClassVar[str] = "alphaedit"
    paper: ClassVar[str] = "Fang et al. 2025, arXiv 2410.02355"

    def __init__(self, model: CausalModel, config: AlphaEditConfig, statistics: KeyStatistics) -> None:
        super().__init__(model, config)
        self._config = config
        self._statistics = statistics
        self._projectors: dict[int, Tensor] = {}
        self._ridges: dict[int, float] = {}
        self._earlier: dict[int, Tensor] = {}

    @override
    def prepare(self, *, on_progress: OnProgress = silent) -> None:
        moments = self._statistics.moments(self.layers, on_progress=on_progress)
        for done, (layer, moment_II) in enumerate(moments.items()):
            on_progress("projectors", done, len(moments))
            self._projectors[layer] = projector(moment_II, free_share=self._config.free_share)
            self._ridges[layer] = self._config.ridge * float(moment_II.diagonal().mean())
        on_progress("projectors", len(moments), len(moments))
        super().prepare(on_progress=on_progress)

    @override
    def _update(self, layer: int, keys_EI: Tensor, residuals_ED: Tensor) -> Tensor:
        earlier_PI = self._earlier.get(layer, keys_EI[:0])
        self._earlier[layer] = torch.cat([earlier_PI, keys_EI])
        return projected_least_squares(
            keys_EI, residuals_ED, earlier_PI, self._projectors[layer], ridge=self._ridges[layer]
        )

    @override
    def undo(self) -> None:
        super().undo()
        self._earlier = {}

    @property
    @override
    def held_bytes(self) -> int:
        """The changed matrices and the keys of all edits."""
        return super().held_bytes + sum(keys.nbytes for keys in self._earlier.values())


def open_alphaedit(model: CausalModel, config: Path | None) -> AlphaEdit:
    """AlphaEdit with the repository's settings, or those of a file.

    Raises:
        ConfigError: The settings cannot be read, the model lacks their layers, or there is no text for C.
    """
    settings = read_config(config or ALPHAEDIT_CONFIG, AlphaEditConfig)
    return AlphaEdit(model, settings, open_statistics(model, settings.statistics))


def projector(moment_II: Tensor, *, free_share: float) -> Tensor:
    """P, (I, I), float64, on C's eigenvectors with the smallest eigenvalues, up to a share of their sum."""
    values_I, vectors_II = torch.linalg.eigh(moment_II)  # ascending
    shares_I = values_I.clamp(min=0).cumsum(0) / values_I.clamp(min=0).sum()
    # Rounding must not take the last direction from a share of 1.
    free_IU = vectors_II[:, shares_I <= free_share + 1e-12]
    projector_II: Tensor = free_IU @ free_IU.T
    return projector_II


def projected_least_squares(
    keys_EI: Tensor, residuals_ED: Tensor, earlier_PI: Tensor, projector_II: Tensor, *, ridge: float
) -> Tensor:
    """ΔW = R Kᵀ P (K_p K_pᵀ P + K Kᵀ P + r 1)⁻¹, (D, I), with P earlier edits and r > 0. All float64."""
    all_NI = torch.cat([earlier_PI, keys_EI])
    projected_NI = all_NI @ projector_II
    gram_NN = projected_NI @ all_NI.T
    gram_NN.diagonal().add_(ridge)
    wanted_ND = torch.cat([residuals_ED.new_zeros(len(earlier_PI), residuals_ED.shape[1]), residuals_ED])
    update_DI: Tensor = torch.linalg.solve(gram_NN, wanted_ND).T @ projected_NI
    return update_DI
