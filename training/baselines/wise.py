"""WISE (Wang et al., NeurIPS 2024, arXiv 2405.14768): a second value matrix beside an MLP's own, and a route.

With k the input of the MLP's value matrix W, a side matrix W' = W + Δ is used where

    a(k) = ‖Δ k‖ > ε

Edits are fitted into shards of Δ, each with its own random mask of density ρ, by normalised gradient steps on

    −log p(target | W')  +  [a(i) − α]₊ + [β − a(e)]₊ + [γ − a(e) + a(i)]₊

with e the key at the edited prompt's end and i that of an unrelated prompt. Δ merges the shards as TIES does:
of each weight, the sign of the shards' sum, and the mean of those with that sign; disjoint shards give their
sum. ε is a share of the least a(e) of all edits, but at least a quantile of a(i).

Differences to the published code: α, β and γ are shares of the median ‖W k‖ of unrelated prompts, not 5, 20
and 10; shards are not trimmed once more before merging. The published route takes the mean of a over all
positions and rows of a call and decides anew at every cached token. Here each row decides once, at its
prompt's last token, and keeps W' from there to the end of its text. Rows below ε are not touched, bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from typing_extensions import override

from serac_gateway.domain.edits import EditDraft
from training.baselines.base import EditingMethod, silent
from training.baselines.causal_model import CausalModel
from training.baselines.development import Prompts, development_prompts
from training.baselines.prompt_cache import CachedPrompt
from training.baselines.routing import prompt_end_inputs, prompt_ends
from training.progress import OnProgress


class WiseSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `configs/baselines/wise.toml`."""

    layer: int
    steps: int = 40
    learning_rate: float = 0.2
    """How far the first step moves W' e at most, a share of the median ‖W k‖; falls to 0 over the steps."""
    stop_loss: float = 0.02
    """Fitting ends where the target's mean loss, in nats a token, is below and the margins are kept."""
    mask_density: float = 0.2
    """ρ."""
    shard_edits: int = 20
    """Edits that share a mask."""
    unrelated_margin: float = 0.1
    """α, as β and γ a share of the median ‖W k‖."""
    edit_margin: float = 0.4
    """β."""
    gap_margin: float = 0.2
    """γ."""
    threshold_share: float = 0.8
    """ε as a share of the least a(e)."""
    threshold_quantile: float = 0.99
    """ε is at least this quantile of a(i)."""
    unrelated_prompts: int = 200
    seed: int = 7


def merged(shards: Sequence[Tensor]) -> Tensor:
    """TIES (Yadav et al., 2023, arXiv 2306.01708) without trimming: the mean of those with the sum's sign."""
    stacked = torch.stack(list(shards))
    agrees = (stacked.sign() == stacked.sum(0).sign()) & (stacked != 0)
    return (stacked * agrees).sum(0) / agrees.sum(0).clamp(min=1)


def random_mask(matrix: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """A mask shaped as the matrix, True at exactly ⌊density · n⌋ of its n weights."""
    mask = torch.zeros(matrix.numel(), dtype=torch.bool)
    mask[torch.randperm(matrix.numel(), generator=generator)[: int(density * matrix.numel())]] = True
    return mask.view_as(matrix)


class Wise(EditingMethod):
    """Holds edits in a side matrix. Acts where `CausalModel` reads prompts and what follows them."""

    name = "wise"
    paper = "Wang et al., 2024, arXiv 2405.14768"

    def __init__(
        self, model: CausalModel, settings: WiseSettings, *, prompts: Prompts = development_prompts
    ) -> None:
        """`prompts` gives unrelated ones, on which `prepare` measures ‖W k‖ and edits their margins.

        Raises:
            ConfigError: The model has no such layer.
        """
        super().__init__(model)
        self._settings = settings
        self._prompts = prompts
        self._matrix = model.value_matrix(settings.layer)
        self._unrelated_ID: Tensor | None = None
        self._generator = torch.Generator()
        self._hook: torch.utils.hooks.RemovableHandle | None = None
        self._routed_B = torch.zeros(0, dtype=torch.bool)
        """Of the prompts read last; holds for the tokens generated after them."""
        self._edited_keys: list[Tensor] = []
        self.masks: list[Tensor] = []
        self.shards: list[Tensor] = []
        self.threshold = float("inf")
        """ε."""

    @override
    def prepare(self, *, on_progress: OnProgress = silent) -> None:
        """Read the unrelated prompts.

        Raises:
            ConfigError: The public data is missing.
        """
        if self._unrelated_ID is None:
            texts = [self.model.prompt_text(text) for text in self._prompts(self._settings.unrelated_prompts)]
            self._unrelated_ID = prompt_end_inputs(self.model, self._matrix, texts, on_progress=on_progress)

    @override
    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        """One after another; a shard that has its number of edits is followed by a new one."""
        self.prepare()
        self._detach()
        try:
            for done, edit in enumerate(edits):
                if len(self._edited_keys) % self._settings.shard_edits == 0:
                    self._begin_shard()
                self._fit(edit)
                on_progress(self.name, done + 1, len(edits))
        finally:
            self._attach()

    @override
    def undo(self) -> None:
        """Take the side matrix away; the model's own was never changed."""
        self._edited_keys.clear()
        self.masks.clear()
        self.shards.clear()
        self._detach()
        self._attach()

    @property
    @override
    def held_bytes(self) -> int:
        """The merged Δ and the keys, by which ε is measured."""
        return sum(key_D.nbytes for key_D in self._edited_keys) + sum(s.nbytes for s in self.shards[:1])

    def _begin_shard(self) -> None:
        if not self.shards:
            self._generator.manual_seed(self._settings.seed)
        weight = self._matrix.weight
        self.masks.append(random_mask(weight, self._settings.mask_density, self._generator))
        self.shards.append(torch.zeros_like(weight))

    def _detach(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _attach(self) -> None:
        self.threshold = float("inf")
        self._routed_B = torch.zeros(0, dtype=torch.bool)
        if not self.shards:
            return
        delta = merged(self.shards)
        edited = (torch.stack(self._edited_keys) @ delta.T).norm(dim=-1).min()
        unrelated_I = (self._unrelated() @ delta.T).norm(dim=-1)
        self.threshold = max(
            self._settings.threshold_share * float(edited),
            float(unrelated_I.quantile(self._settings.threshold_quantile)),
        )

        def route(_: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
            return self._routed(given[0], output, delta)

        self._hook = self._matrix.register_forward_hook(route)

    def _routed(self, keys_BLD: Tensor, output_BLD: Tensor, delta: Tensor) -> Tensor:
        begins_B = self.model.prompt_end_B
        if begins_B is None:
            begins_B = torch.zeros(len(keys_BLD), dtype=torch.long)
        else:
            self._routed_B = (prompt_ends(self.model, keys_BLD) @ delta.T).norm(dim=-1) > self.threshold
        if len(self._routed_B) != len(keys_BLD) or not self._routed_B.any():
            return output_BLD
        is_side_BL = torch.arange(keys_BLD.shape[1]) >= begins_B[:, None]
        is_side_BL &= self._routed_B[:, None]
        changed_BLD = output_BLD.clone()
        changed_BLD[is_side_BL] += keys_BLD[is_side_BL] @ delta.T
        return changed_BLD

    def _unrelated(self) -> Tensor:
        assert self._unrelated_ID is not None, "edits come after preparing"
        return self._unrelated_ID

    def _fit(self, edit: EditDraft) -> None:
        """Fit the edit into the last shard; no route is attached."""
        text = self.model.prompt_text(edit.prompt)
        (key_D,) = prompt_end_inputs(self.model, self._matrix, [text])
        prompt = CachedPrompt(self.model, edit)
        shard, mask = self.shards[-1].requires_grad_(), self.masks[-1]
        unit = float((self._unrelated() @ self._matrix.weight.T).norm(dim=-1).median())
        longest = self._settings.learning_rate * unit / float(key_D.norm())
        hook = self._matrix.register_forward_hook(lambda _, given, output: output + given[0] @ shard.T)
        try:
            for step in range(self._settings.steps):
                target_loss = -prompt.log_probs().mean()
                margin_loss = self._margin_loss(shard, key_D, unit)
                if target_loss.item() < self._settings.stop_loss and margin_loss.item() == 0:
                    break
                (gradient,) = torch.autograd.grad(target_loss + margin_loss, shard)
                gradient = gradient * mask
                length = longest * (1 - step / self._settings.steps)
                shard.data.sub_(gradient, alpha=length / max(float(gradient.norm()), 1e-12))
        finally:
            hook.remove()
            shard.requires_grad_(False)
        self._edited_keys.append(key_D)

    def _margin_loss(self, shard: Tensor, key_D: Tensor, unit: float) -> Tensor:
        """The three margins, in shares of `unit`; of the unrelated prompts the mean."""
        edited = (shard @ key_D).norm() / unit
        unrelated_I = (self._unrelated() @ shard.T).norm(dim=-1) / unit
        settings = self._settings
        margins_I = (
            (unrelated_I - settings.unrelated_margin).relu()
            + (settings.edit_margin - edited).relu()
            + (settings.gap_margin - edited + unrelated_I).relu()
        )
        loss: Tensor = margins_I.mean()
        return loss
