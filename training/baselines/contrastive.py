"""Sparse gradient editing: few weights, chosen and moved by what tells the edits from their neighbours.

With L_edit the loss of the new targets after the edits' prompts, and L_local that of the same targets after
the same prompts about other subjects, where they must not be said (losses of fitting.py):

    g = ∇L_edit - β ∇L_local                                     beta given: L_local is raised meanwhile
    g = ∇L_edit - (∇L_edit·∇L_local / ‖∇L_local‖²) ∇L_local      beta absent: L_local stays, to first order
    M = the ⌊ρ n⌋ weights with the largest |g|, of the n that may change; chosen once for a call
    θ_M ← θ_M - s · (L_edit / ‖g_M‖²) g_M

In the second form g is taken on M alone, so that the step is orthogonal to ∇L_local there, too. The step is
Polyak's (1987), for a loss whose minimum is 0; it follows g without Adam, which would turn it out of the
orthogonal plane. No published method is exactly this: keeping the largest share is from RECT (Gu et al. 2024,
arXiv 2401.04700), the orthogonal step from O-Edit (Cai and Cao 2024, arXiv 2410.11469). *Shapes:* N weights
that may change, M that do.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor

from serac_gateway.domain.edits import EditDraft
from training.baselines.base import EditingMethod, silent
from training.baselines.causal_model import CausalModel
from training.baselines.fitting import Pair, pairs_of, target_loss
from training.baselines.parameters import chosen_parameters, with_gradients
from training.progress import OnProgress
from training.runs import TrainingError


class ContrastiveSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As in configs/baselines/contrastive.toml."""

    parameters: tuple[str, ...]
    """Patterns over the names of parameters, see `chosen_parameters`: the N weights."""
    kept_share: float
    """ρ, in 0..1."""
    beta: float | None = None
    """None: project."""
    other_subjects: tuple[str, ...]
    """Put in place of an edit's subject for L_local."""
    others_per_edit: int
    step: float
    """s; at 1 a linear loss would be 0 after the first step."""
    epochs: int
    batch_size: int
    stop_loss: float
    seed: int = 13


class ContrastiveGradient(EditingMethod):
    """Keeps for every call the places that it changes and what they held."""

    name = "contrastive"
    paper = "after RECT (Gu et al. 2024, arXiv 2401.04700) and O-Edit (Cai and Cao 2024, arXiv 2410.11469)"

    def __init__(self, model: CausalModel, settings: ContrastiveSettings) -> None:
        """Raises ConfigError where a pattern of the settings matches no parameter."""
        super().__init__(model)
        self.settings = settings
        self._parameters = list(chosen_parameters(model, settings.parameters).values())
        self._held: list[tuple[Tensor, Tensor]] = []

    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        """Choose the weights by the gradients of all of them, then descend in batches, epoch by epoch.

        Raises:
            TrainingError: An edit has no subject, or its prompt lacks it (nothing is changed then); or the
                loss is not finite, and `undo` restores the model.
        """
        local = self.local_pairs(edits)
        pairs = pairs_of(self.model, edits)
        order, rng = list(range(len(edits))), random.Random(self.settings.seed)
        total = len(edits) * (self.settings.epochs + 1)
        size = self.settings.batch_size
        places_M = self._chosen_places(pairs, local, on_progress=on_progress, total=total)
        self._held.append((places_M, self._values(places_M)))
        for epoch in range(self.settings.epochs):
            rng.shuffle(order)
            mean_loss = 0.0
            for begin in range(0, len(order), size):
                batch = order[begin : begin + size]
                loss = self._step([pairs[i] for i in batch], [p for i in batch for p in local[i]], places_M)
                mean_loss += loss * len(batch) / len(edits)
                on_progress("descending", (epoch + 1) * len(edits) + begin + len(batch), total)
            if mean_loss < self.settings.stop_loss:
                break
        on_progress("descending", total, total)

    def undo(self) -> None:
        """Put back what the changed places held, the last call's first."""
        for places_M, values_M in reversed(self._held):
            self._put(places_M, values_M)
        self._held.clear()

    @property
    def held_bytes(self) -> int:
        """Places and earlier values, of every call."""
        return sum(places_M.nbytes + values_M.nbytes for places_M, values_M in self._held)

    def local_pairs(self, edits: Sequence[EditDraft]) -> list[list[Pair]]:
        """For each edit its target after its prompt about other subjects, drawn by the settings' seed.

        Raises:
            TrainingError: An edit has no subject, or its prompt lacks it.
        """
        rng = random.Random(self.settings.seed)
        return [
            [
                (self.model.prompt_text(_about(edit, other)), edit.target_new)
                for other in rng.sample(self.settings.other_subjects, self.settings.others_per_edit)
            ]
            for edit in edits
        ]

    def gradient(self, pairs: Sequence[Pair]) -> tuple[float, Tensor]:
        """The mean loss of pairs and its gradient over all N weights in a row, (N,)."""
        with with_gradients(self._parameters):
            loss = target_loss(self.model, pairs)
            parts = torch.autograd.grad(loss, self._parameters)
        return loss.item(), torch.cat([part.reshape(-1) for part in parts])

    def contrast(self, edit_N: Tensor, local_N: Tensor) -> Tensor:
        """g, of the two gradients over the same weights."""
        if self.settings.beta is not None:
            return edit_N - self.settings.beta * local_N
        length = local_N.dot(local_N)
        return edit_N if length == 0 else edit_N - (edit_N.dot(local_N) / length) * local_N

    def _chosen_places(
        self, pairs: Sequence[Pair], local: Sequence[Sequence[Pair]], *, on_progress: OnProgress, total: int
    ) -> Tensor:
        weights = sum(parameter.numel() for parameter in self._parameters)
        edit_N, local_N = torch.zeros(weights), torch.zeros(weights)
        for begin in range(0, len(pairs), self.settings.batch_size):
            part = slice(begin, begin + self.settings.batch_size)
            edit_N += self.gradient(pairs[part])[1] * len(pairs[part]) / len(pairs)
            others = [pair for of_edit in local[part] for pair in of_edit]
            local_N += self.gradient(others)[1] * len(pairs[part]) / len(pairs)
            on_progress("choosing weights", begin + len(pairs[part]), total)
        largest = self.contrast(edit_N, local_N).abs().topk(int(self.settings.kept_share * weights))
        return largest.indices.sort().values

    def _step(self, pairs: Sequence[Pair], local: Sequence[Pair], places_M: Tensor) -> float:
        loss, edit_N = self.gradient(pairs)
        _, local_N = self.gradient(local)
        change_M = self.contrast(edit_N[places_M], local_N[places_M])
        change_M *= self.settings.step * loss / change_M.dot(change_M).clamp(min=1e-30)
        if not torch.isfinite(change_M).all():
            raise TrainingError(f"the loss of the edits became {loss!r}; undo the edits and lower step")
        self._put(places_M, self._values(places_M) - change_M)
        return loss

    def _values(self, places_M: Tensor) -> Tensor:
        return torch.cat([parameter.detach().view(-1)[own] for parameter, own, _ in self._split(places_M)])

    def _put(self, places_M: Tensor, values_M: Tensor) -> None:
        for parameter, own, part in self._split(places_M):
            parameter.detach().view(-1)[own] = values_M[part]

    def _split(self, places_M: Tensor) -> list[tuple[Tensor, Tensor, slice]]:
        """For each parameter the places inside it, and where they stand among the (sorted) M."""
        split: list[tuple[Tensor, Tensor, slice]] = []
        first = begin = 0
        for parameter in self._parameters:
            end = int(torch.searchsorted(places_M, first + parameter.numel()))
            split.append((parameter, places_M[begin:end] - first, slice(begin, end)))
            first, begin = first + parameter.numel(), end
        return split


def _about(edit: EditDraft, other: str) -> str:
    """The edit's prompt with another subject in place of the last occurrence of its own."""
    at = edit.prompt.casefold().rfind((edit.subject or "").casefold())
    if not edit.subject or at < 0:
        raise TrainingError(
            f"the edit with prompt {edit.prompt!r} has no subject in it ({edit.subject!r}); contrastive "
            "editing asks the same of other subjects, so give a subject that the prompt contains"
        )
    return edit.prompt[:at] + other + edit.prompt[at + len(edit.subject) :]
