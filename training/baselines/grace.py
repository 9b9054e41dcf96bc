"""GRACE (Hartvigsen et al., NeurIPS 2023, arXiv 2211.11031): a codebook beside one layer; no weight changes.

A layer maps h to f(h). Of each prompt's last token the codebook compares h with its keys kᵢ, each with a
radius εᵢ and a value vᵢ, and replaces the layer's output there:

    out = vᵢ  if  i = argmin ‖h − kᵢ‖  and  ‖h − kᵢ‖ ≤ εᵢ,   else f(h)

vᵢ minimises −log p(target | prompt, out = vᵢ), from f(h) on. A new edit, at distance d of its nearest key i,

    d > εᵢ + ε₀           has a key of its own, with radius ε₀
    same target           lets the nearest key reach it: εᵢ := max(εᵢ, d)
    another target        has a key of its own, and both get the radius d/2
    another target, d = 0 takes the place of the key: the newer edit holds

Differences to the published code: the layer is a whole decoder layer, since what an MLP writes is normalised
once more in Gemma; ε₀ is a quantile of the distances of unrelated prompts to their nearest, not 1; steps are
relative to ‖f(h)‖; targets are compared token by token, not by the mean of their ids. The decision is made
once, at the prompt's last token, row by row; generated tokens attend to the replaced state and are never
looked up, so a cache of keys and values changes nothing.

The codebook is a function of the list of edits: every edit has a value fitted, and a codebook that lacks one
edit is bit by bit that in which it was never made.
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
from training.baselines.routing import prompt_end_inputs, prompt_ends, replaced
from training.progress import OnProgress


class GraceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `configs/baselines/grace.toml`."""

    layer: int
    """From 0; not the last one, where a replaced state could change one token only."""
    steps: int = 50
    learning_rate: float = 0.1
    """Length of Adam's first step as a share of ‖f(h)‖."""
    stop_loss: float = 0.02
    """Fitting ends where the mean loss of the target's tokens, in nats, is below."""
    radius_quantile: float = 0.1
    """ε₀ is this quantile of the distances between unrelated prompts and the nearest other one."""
    radius_prompts: int = 200


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """What one edit needs in any codebook."""

    target: tuple[int, ...]
    key_D: Tensor
    value_D: Tensor


class Codebook:
    """Keys with radii, in the order of the edits that brought them."""

    def __init__(self, edits: Sequence[Fitted], radius: float) -> None:
        """`radius` is ε₀."""
        self.entries: list[Fitted] = []
        self.radii: list[float] = []
        for edit in edits:
            self._add(edit, radius)

    def _add(self, edit: Fitted, radius: float) -> None:
        nearest, distance = self._nearest(edit.key_D) if self.entries else (-1, float("inf"))
        if not self.entries or distance > self.radii[nearest] + radius:
            self.entries.append(edit)
            self.radii.append(radius)
        elif self.entries[nearest].target == edit.target:
            self.radii[nearest] = max(self.radii[nearest], distance)
        elif distance == 0:
            self.entries[nearest] = edit
        else:
            self.entries.append(edit)
            self.radii.append(distance / 2)
            self.radii[nearest] = distance / 2

    def _nearest(self, key_D: Tensor) -> tuple[int, float]:
        distances_K = torch.stack([(entry.key_D - key_D).norm() for entry in self.entries])
        nearest = int(distances_K.argmin())
        return nearest, float(distances_K[nearest])

    def value(self, key_D: Tensor) -> Tensor | None:
        """The value whose key is nearest, or None beyond its radius."""
        if not self.entries:
            return None
        nearest, distance = self._nearest(key_D)
        return self.entries[nearest].value_D if distance <= self.radii[nearest] else None


class Grace(EditingMethod):
    """Holds edits in a codebook beside a decoder layer. Acts where `CausalModel` reads prompts."""

    name = "grace"
    paper = "Hartvigsen et al., 2023, arXiv 2211.11031"

    def __init__(
        self, model: CausalModel, settings: GraceSettings, *, prompts: Prompts = development_prompts
    ) -> None:
        """`prompts` gives unrelated ones; `prepare` measures ε₀ on them.

        Raises:
            ConfigError: The model has no such layer.
        """
        super().__init__(model)
        self._settings = settings
        self._prompts = prompts
        self._layer = model.module(f"model.layers.{settings.layer}")
        self._radius: float | None = None
        self._edits: list[Fitted] = []
        self._hook: torch.utils.hooks.RemovableHandle | None = None
        self.codebook = Codebook((), 0)

    @override
    def prepare(self, *, on_progress: OnProgress = silent) -> None:
        """Measure ε₀.

        Raises:
            ConfigError: The public data is missing.
        """
        if self._radius is None:
            texts = [self.model.prompt_text(text) for text in self._prompts(self._settings.radius_prompts)]
            keys_KD = prompt_end_inputs(self.model, self._layer, texts, on_progress=on_progress)
            distances_KK = torch.cdist(keys_KD, keys_KD).fill_diagonal_(float("inf"))
            self._radius = float(distances_KK.min(1).values.quantile(self._settings.radius_quantile))

    @override
    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        """One after another."""
        self.prepare()
        self._detach()
        try:
            for done, edit in enumerate(edits):
                self._edits.append(self._fitted(edit))
                on_progress(self.name, done + 1, len(edits))
        finally:
            self._rebuild()

    @override
    def undo(self) -> None:
        """Take the codebook away."""
        self._edits.clear()
        self._rebuild()

    def forget(self, index: int) -> None:
        """Undo one edit, by its place in the order in which they were made: as if it had never been.

        Raises:
            IndexError: There are fewer edits.
        """
        del self._edits[index]
        self._rebuild()

    @property
    @override
    def held_bytes(self) -> int:
        """The keys and values of all edits."""
        return sum(edit.key_D.nbytes + edit.value_D.nbytes for edit in self._edits)

    def _rebuild(self) -> None:
        assert self._radius is not None or not self._edits, "edits were fitted after preparing"
        self.codebook = Codebook(self._edits, self._radius or 0.0)
        self._detach()
        if self._edits:
            self._hook = self._layer.register_forward_hook(self._look_up)

    def _detach(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _look_up(self, _: nn.Module, given: tuple[Any, ...], output: Any) -> Any:  # noqa: ANN401
        if self.model.prompt_end_B is None:
            return output
        keys_BD = prompt_ends(self.model, given[0])
        return replaced(self.model, output, [self.codebook.value(key_D) for key_D in keys_BD])

    def _fitted(self, edit: EditDraft) -> Fitted:
        """The edit's key and value; the codebook must be detached, since the value does not depend on it."""
        text = self.model.prompt_text(edit.prompt)
        (key_D,) = prompt_end_inputs(self.model, self._layer, [text])
        prompt = CachedPrompt(self.model, edit)
        target = tuple(self.model.target_ids(edit.target_new))
        return Fitted(target=target, key_D=key_D, value_D=self._fitted_value(prompt))

    def _fitted_value(self, prompt: CachedPrompt) -> Tensor:
        value_D: Tensor | None = None

        def replace(_: nn.Module, given: tuple[Any, ...], output: Any) -> Any:  # noqa: ANN401
            nonlocal value_D
            if value_D is None:
                value_D = prompt_ends(self.model, output)[0].detach().clone().requires_grad_()
            return replaced(self.model, output, [value_D])

        hook = self._layer.register_forward_hook(replace)
        try:
            loss = -prompt.log_probs().mean()
            assert value_D is not None, "the layer has run"
            step = self._settings.learning_rate * float(value_D.detach().norm()) / value_D.numel() ** 0.5
            optimizer = torch.optim.Adam([value_D], lr=step)
            for _ in range(self._settings.steps):
                if loss.item() < self._settings.stop_loss:
                    break
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                loss = -prompt.log_probs().mean()
        finally:
            hook.remove()
        return value_D.detach()
