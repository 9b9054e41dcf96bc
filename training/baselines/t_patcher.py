"""T-Patcher (Huang et al., ICLR 2023, arXiv 2301.09785): neurons added to the last MLP, one a wrong token.

With q the MLP's input at a token and y(q) its output, N patches make

    y'(q) = y(q) + Σ_N  relu(q·k_N + b_N) v_N

A patch is fitted for each token of a target that the model would not have said, with query e, by

    −log p(target)  +  α exp(−(e·k + b))                                 the patch is on at e
                    +  μ [ S(M k + b + m) + S((M − e) k + m) ]           and off at the memory M

where S is the mean of the largest exponentials and M holds the queries of unrelated prompts, all tokens, and
of earlier edits. k begins at A e/‖e‖², so that activations, and with them the margin m, have no unit.

A patch that is off adds 0, so the output is bit-equal. That needs the ReLU: Gemma's own neurons are GeGLU,
gelu(q·g) (q·u), which leak below 0; the patches are plain ReLU neurons beside them. Their sum enters before
Gemma's norm of the MLP's output, so of y' only the direction counts. A token's patches depend on its own
query only, and no later layer reads it: a cache of keys and values, or the rest of a batch, changes nothing.
What was added is dropped to undo it; no weight of the model changes.

Differences to the published code, which edits BERT and BART: steps are relative to ‖k‖ and ‖y‖/A.
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
from training.baselines.routing import token_inputs
from training.progress import OnProgress


class TPatcherSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `configs/baselines/t-patcher.toml`."""

    steps: int = 100
    learning_rate: float = 0.05
    """Length of Adam's first step: a share of ‖k‖, of A for b, and of ‖y‖/A for v."""
    stop_loss: float = 0.02
    """Fitting ends where the target's mean loss, in nats a token, is below and no memory sets a patch on."""
    amplification: float = 10.0
    """A."""
    margin: float = 3.0
    """m."""
    activation_weight: float = 1.0
    """α."""
    memory_weight: float = 10.0
    """μ."""
    largest: int = 50
    """How many exponentials S takes."""
    memory_prompts: int = 200
    max_patches: int = 5
    """Of one edit."""


class Patches(msgspec.Struct, frozen=True, kw_only=True):
    """The neurons of an edit. *Shapes:* N patches, D width."""

    prompt: str
    queries_ND: Tensor
    keys_ND: Tensor
    biases_N: Tensor
    values_ND: Tensor

    def activations(self, queries_QD: Tensor) -> Tensor:
        """Before the ReLU, (Q, N) or any shape (…, N)."""
        return queries_QD @ self.keys_ND.T + self.biases_N

    def added(self, queries_QD: Tensor) -> Tensor:
        """What the neurons add to the MLP's output, shaped as the queries."""
        return self.activations(queries_QD).relu() @ self.values_ND


class TPatcher(EditingMethod):
    """Adds neurons to the last MLP."""

    name = "t-patcher"
    paper = "Huang et al., 2023, arXiv 2301.09785"

    def __init__(
        self, model: CausalModel, settings: TPatcherSettings, *, prompts: Prompts = development_prompts
    ) -> None:
        """`prompts` gives unrelated ones; `prepare` takes the queries of all their tokens as memory."""
        super().__init__(model)
        self._settings = settings
        self._prompts = prompts
        self._mlp = model.module(f"model.layers.{len(model.layers) - 1}.mlp")
        self._memory_MD: Tensor | None = None
        self._hook: torch.utils.hooks.RemovableHandle | None = None
        self.patches: list[Patches] = []
        """Of each edit, in order; without neurons where the model said the target already."""

    @override
    def prepare(self, *, on_progress: OnProgress = silent) -> None:
        """Read the memory.

        Raises:
            ConfigError: The public data is missing.
        """
        if self._memory_MD is None:
            texts = [self.model.prompt_text(text) for text in self._prompts(self._settings.memory_prompts)]
            self._memory_MD = token_inputs(self.model, self._mlp, texts, on_progress=on_progress)

    @override
    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        """One after another, each on top of the earlier ones."""
        self.prepare()
        for done, edit in enumerate(edits):
            self.patches.append(self._fitted(edit))
            self._attach()
            on_progress(self.name, done + 1, len(edits))

    @override
    def undo(self) -> None:
        """Drop all patches."""
        self.patches.clear()
        self._attach()

    def forget(self, index: int) -> None:
        """Drop the patches of one edit, by its place in the order in which they were made.

        Raises:
            IndexError: There are fewer edits.
        """
        del self.patches[index]
        self._attach()

    @property
    @override
    def held_bytes(self) -> int:
        """Keys, biases, values, and the queries that later patches must leave alone."""
        return sum(
            tensor.nbytes
            for patches in self.patches
            for tensor in (patches.queries_ND, patches.keys_ND, patches.biases_N, patches.values_ND)
        )

    def _attach(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        if self.patches:
            self._hook = self._mlp.register_forward_hook(self._add)

    def _add(self, _: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
        for patches in self.patches:
            output = output + patches.added(given[0])
        return output

    def _fitted(self, edit: EditDraft) -> Patches:
        prompt = CachedPrompt(self.model, edit)
        seen: list[tuple[Tensor, Tensor]] = []
        hook = self._mlp.register_forward_hook(lambda _, given, out: seen.append((given[0][0], out[0])))
        with torch.no_grad():
            is_wrong_T = prompt.predicted() != prompt.target_T
        hook.remove()
        ((queries_TD, outputs_TD),) = seen
        wrong = is_wrong_T.nonzero()[: self._settings.max_patches, 0]
        memory_MD = torch.cat([
            self._memory(), *(made.queries_ND for made in self.patches if made.prompt != edit.prompt)
        ])  # fmt: skip
        queries_ND = queries_TD[wrong].clone()
        start = self._started(edit.prompt, queries_ND)
        if len(wrong):
            self._fit(start, prompt, memory_MD, float(outputs_TD.norm(dim=-1).mean()))
        return start

    def _started(self, prompt: str, queries_ND: Tensor) -> Patches:
        keys_ND = self._settings.amplification * queries_ND / queries_ND.square().sum(-1, keepdim=True)
        return Patches(
            prompt=prompt, queries_ND=queries_ND, keys_ND=keys_ND, biases_N=torch.zeros(len(queries_ND)),
            values_ND=torch.zeros_like(queries_ND),
        )  # fmt: skip

    def _memory(self) -> Tensor:
        assert self._memory_MD is not None, "edits come after preparing"
        return self._memory_MD

    def _fit(self, patches: Patches, prompt: CachedPrompt, memory_MD: Tensor, output_norm: float) -> None:
        """Fit the tensors of `patches` in place."""
        settings = self._settings
        weights = (patches.keys_ND, patches.biases_N, patches.values_ND)
        width = patches.keys_ND.shape[1]
        sizes = (
            float(patches.keys_ND.norm(dim=-1).mean()) / width**0.5,
            settings.amplification,
            output_norm / settings.amplification / width**0.5,
        )
        optimizer = torch.optim.Adam(
            {"params": [weight.requires_grad_()], "lr": settings.learning_rate * size}
            for weight, size in zip(weights, sizes, strict=True)
        )
        hook = self._mlp.register_forward_hook(lambda _, given, output: output + patches.added(given[0]))
        try:
            for _ in range(settings.steps):
                target_loss = -prompt.log_probs().mean()
                memory_MN = patches.activations(memory_MD)
                if target_loss.item() < settings.stop_loss and not (memory_MN > 0).any():
                    break
                optimizer.zero_grad()
                loss = target_loss + self._gate_loss(patches, memory_MN)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        finally:
            hook.remove()
            for weight in weights:
                weight.requires_grad_(False).grad = None

    def _gate_loss(self, patches: Patches, memory_MN: Tensor) -> Tensor:
        settings = self._settings
        own_N = patches.activations(patches.queries_ND).diagonal()
        count = min(settings.largest, len(memory_MN))
        off_N = (memory_MN + settings.margin).topk(count, 0).values.exp().mean(0)
        apart_N = (memory_MN - own_N + settings.margin).topk(count, 0).values.exp().mean(0)
        loss: Tensor = (
            settings.activation_weight * (-own_N).exp() + settings.memory_weight * (off_N + apart_N)
        ).mean()
        return loss
