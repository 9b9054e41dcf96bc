"""ROME: one fact, one rank-one change of one matrix.

Meng, Bau, Andonian, Belinkov, "Locating and Editing Factual Associations in GPT", NeurIPS 2022, arXiv
2202.05262. The second matrix W of a layer's MLP is read as an associative memory: keys k in, values W k out.
To write k* ↦ v* with the least disturbance of other keys, whose second moment is C = E[k kᵀ] (equation 2):

    W ← W + (v* − W k*) (C⁻¹ k*)ᵀ / (k*ᵀ C⁻¹ k*)

so that W' k* = v*, and W' k = W k for every k with kᵀ C⁻¹ k* = 0.

k* is the mean input of W at the subject's last token over the contexts. The published code took this mean in
one place and the bare prompt's key in two others, which makes the denominator tiny and wrecks models (Gupta
et al., arXiv 2403.07175, "R-ROME"); here it is the same key in all three: v* = W k* + δ.

δ is searched at the output of W (see `shifts`), and the gradient runs through whatever follows. On Gemma a
normalisation does: only the direction of W k reaches the residual stream. A shift found behind it would be
three to five times too large when written before it.

C is damped by a share of its mean eigenvalue, else its smallest eigenvalues, noise of a finite text, decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import msgspec
import torch
from torch import Tensor
from typing_extensions import override

from serac_gateway.domain.edits import EditDraft
from training.baselines.base import EditingMethod, silent
from training.baselines.causal_model import CausalModel
from training.baselines.key_statistics import KeyStatistics, StatisticsConfig, open_statistics
from training.baselines.shifts import EditRows, SearchConfig, edit_rows, searched_shifts, written_contexts
from training.baselines.suffixes import at_subject
from training.progress import OnProgress
from training.runs import read_config

ROME_CONFIG = Path("configs/baselines/rome.toml")


class RomeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What configs/baselines/rome.toml holds."""

    layer: int
    damping: float
    """Added to C's diagonal, as a share of its mean eigenvalue."""
    search: SearchConfig
    statistics: StatisticsConfig


class Rome(EditingMethod):
    """Edits are made one after another, each on the model that the earlier ones left."""

    name: ClassVar[str] = "rome"
    paper: ClassVar[str] = "Meng et al. 2022, arXiv 2202.05262; R-ROME: Gupta et al. 2024, arXiv 2403.07175"

    def __init__(self, model: CausalModel, config: RomeConfig, statistics: KeyStatistics) -> None:
        """Raises ConfigError if the model has no such layer, or one of another make."""
        super().__init__(model)
        self._config = config
        self._statistics = statistics
        self._matrix = model.value_matrix(config.layer)
        self.contexts: list[str] = []
        """What a prompt is read behind, "" first; after `prepare`."""
        self._root_II: Tensor | None = None
        self._original: Tensor | None = None

    @override
    def prepare(self, *, on_progress: OnProgress = silent) -> None:
        layer = self._config.layer
        moment_II = self._statistics.moments([layer], on_progress=on_progress)[layer]
        self._root_II = cholesky(moment_II, damping=self._config.damping)
        self.contexts = written_contexts(self.model, self._config.search)

    @override
    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        if self._root_II is None:
            self.prepare(on_progress=on_progress)
        rows = [edit_rows(self.model, edit, self.contexts) for edit in edits]
        if self._original is None:
            self._original = self._matrix.weight.detach().clone()
        for done, row in enumerate(rows):
            on_progress("edits", done, len(rows))
            self._write(row)
        on_progress("edits", len(rows), len(rows))

    def _write(self, rows: EditRows) -> None:
        assert self._root_II is not None
        layer = self._config.layer
        keys, _ = at_subject(self.model, rows.in_contexts, [layer])
        key_I = keys[layer].double().mean(0)
        (shift_D,) = searched_shifts(self.model, [rows], self._matrix, layer, self._config.search).double()
        with torch.no_grad():
            self._matrix.weight += rank_one(key_I, shift_D, self._root_II).float()

    @override
    def undo(self) -> None:
        if self._original is not None:
            self._matrix.weight.data.copy_(self._original)
            self._original = None

    @property
    @override
    def held_bytes(self) -> int:
        """The changed matrix, once there is an edit."""
        return 0 if self._original is None else self._original.nbytes


def open_rome(model: CausalModel, config: Path | None) -> Rome:
    """ROME with the repository's settings, or those of a file.

    Raises:
        ConfigError: The settings cannot be read, the model lacks their layers, or there is no text for C.
    """
    settings = read_config(config or ROME_CONFIG, RomeConfig)
    return Rome(model, settings, open_statistics(model, settings.statistics))


def cholesky(moment_II: Tensor, *, damping: float) -> Tensor:
    """Lower factor of C + damping · (tr C / I) · 1, (I, I), float64."""
    damped_II = moment_II.clone()
    damped_II.diagonal().add_(damping * moment_II.diagonal().mean())
    root_II: Tensor = torch.linalg.cholesky(damped_II)
    return root_II


def rank_one(key_I: Tensor, change_D: Tensor, root_II: Tensor) -> Tensor:
    """ΔW, (D, I), that changes W k* by `change_D`; `root_II` is C's lower Cholesky factor. All float64."""
    direction_I = torch.cholesky_solve(key_I[:, None], root_II)[:, 0]
    return torch.outer(change_D, direction_I / (key_I @ direction_I))
