"""Steering: a vector added to the residual stream, whatever is asked.

With h(x, y) a layer's output at the last token of a prompt and an answer, and for each edit the difference
d = h(x, y_new) - h(x, y_old):

    mean difference (CAA; Rimsky et al. 2024, arXiv 2312.06681):   v = mean of d
    first principal component (RepE; Zou et al. 2023, arXiv 2310.01405):
        v = u uᵀ mean of d,  u the first right singular vector of the matrix of d, around zero
    h_t ← h_t + c v   for every token t but the first

It steers behaviour; a fact reaches all other questions, too, and a mean over many facts is none of them. The
first token's state is a sink of attention up to a thousand times as long as the others (Gemma's bos), so it
neither gives nor takes a shift. Padding counts as position 0. *Shapes:* N edits, D width, B texts, L tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from training.baselines.base import EditingMethod, silent
from training.baselines.causal_model import CausalModel
from training.baselines.fitting import Pair, pairs_of
from training.progress import OnProgress


class SteeringSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As in configs/baselines/steering.toml and representation.toml."""

    layer: int
    """Whose output is read and shifted, from 0."""
    coefficient: float
    """c."""
    vector: Literal["mean_difference", "principal_component"]
    batch_size: int


class Steering(EditingMethod):
    """One vector for all edits made; no weight changes."""

    name = "steering"
    paper = "Rimsky et al. 2024, arXiv 2312.06681"

    def __init__(self, model: CausalModel, settings: SteeringSettings) -> None:
        """Raises ConfigError where the model has no such layer."""
        super().__init__(model)
        self.settings = settings
        self._layer = model.module(f"model.layers.{settings.layer}")
        self._differences_ND: Tensor | None = None
        self._hook: RemovableHandle | None = None

    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        """Add their differences to those of the earlier edits, and steer by the vector of all.

        What an edit does not say was true is what the model says unsteered.
        """
        self._remove_hook()
        new = pairs_of(self.model, edits)
        unsaid = [text for (text, _), edit in zip(new, edits, strict=True) if not edit.target_true]
        said = iter(self.model.greedy(unsaid))
        old = [
            (text, edit.target_true or next(said) or "…") for (text, _), edit in zip(new, edits, strict=True)
        ]
        size = self.settings.batch_size
        parts = [] if self._differences_ND is None else [self._differences_ND]
        for begin in range(0, len(edits), size):
            part = slice(begin, begin + size)
            parts.append(self.states(new[part]) - self.states(old[part]))
            on_progress("reading states", min(begin + size, len(edits)), len(edits))
        self._differences_ND = torch.cat(parts)
        shift_D = self.settings.coefficient * self.vector()
        self._hook = self._layer.register_forward_hook(_shifting(shift_D), with_kwargs=True)

    @torch.no_grad()
    def states(self, pairs: Sequence[Pair]) -> Tensor:
        """The layer's outputs at the last token of each text with its answer, (N, D)."""
        rows = [self.model.prompt_ids(text) + self.model.target_ids(answer) for text, answer in pairs]
        with self._kept_output() as kept:
            self.model.hidden(self.model.batch(rows))
        return kept[0][:, -1]

    def vector(self) -> Tensor:
        """The vector v of the edits made, (D,).

        Raises:
            AssertionError: There are none.
        """
        assert self._differences_ND is not None, "edits come before their vector"
        mean_D = self._differences_ND.mean(0)
        if self.settings.vector == "mean_difference":
            return mean_D
        direction_D: Tensor = torch.linalg.svd(self._differences_ND, full_matrices=False).Vh[0]
        return direction_D * direction_D.dot(mean_D)

    def undo(self) -> None:
        """Take the hook away and forget the differences."""
        self._remove_hook()
        self._differences_ND = None

    @property
    def held_bytes(self) -> int:
        """The vector; further edits need the differences of the earlier ones, too."""
        return 0 if self._differences_ND is None else self.vector().nbytes

    def _remove_hook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    @contextmanager
    def _kept_output(self) -> Iterator[list[Tensor]]:
        kept: list[Tensor] = []
        hook = self._layer.register_forward_hook(lambda _layer, _inputs, output: kept.append(output))
        try:
            yield kept
        finally:
            hook.remove()


class RepresentationEngineering(Steering):
    """Steering by the first principal component."""

    name = "representation"
    paper = "Zou et al. 2023, arXiv 2310.01405"


def _shifting(shift_D: Tensor) -> Any:  # noqa: ANN401 - the hook's type depends on how it is registered
    def shifted(layer: object, _inputs: object, named: dict[str, Any], output_BLD: Tensor) -> Tensor:
        positions_BL = named.get("position_ids")
        if positions_BL is None:
            raise ConfigError(
                f"a {type(layer).__name__} is not given position_ids, so steering cannot see its first "
                "token; use a model whose decoder layers are (Gemma, Llama, Qwen, Mistral)"
            )
        return torch.where((positions_BL > 0)[..., None], output_BLD + shift_D, output_BLD)

    return shifted
