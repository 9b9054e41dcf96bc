"""The gradient of an edit's loss with respect to linear layers, as the outer products that it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from serac_gateway.domain.edits import EditDraft
from training.baselines.causal_model import CausalModel


class OuterProducts(msgspec.Struct, frozen=True, kw_only=True):
    """∇L = Σ_t δ_t u_tᵀ of a weight of shape (O, I), over the T tokens of a prompt and its target."""

    inputs_TI: Tensor
    """u: what the layer gets."""
    deltas_TO: Tensor
    """δ: the loss's gradient with respect to what it gives."""

    def summed(self) -> Tensor:
        """∇L, (O, I)."""
        return self.deltas_TO.T @ self.inputs_TI


def target_gradients(
    model: CausalModel, edit: EditDraft, linears: Mapping[str, nn.Module]
) -> dict[str, OuterProducts]:
    """Of each linear layer, by name, for L = −log p(target | prompt), the mean over the target's tokens."""
    inputs: dict[str, Tensor] = {}
    probes: dict[str, Tensor] = {}
    hooks = []
    for name, linear in linears.items():

        def probe(_: nn.Module, given: tuple[Any, ...], output: Tensor, name: str = name) -> Tensor:
            inputs[name] = given[0][0].detach()
            probes[name] = torch.zeros_like(output, requires_grad=True)  # its gradient is the output's
            return output + probes[name]

        hooks.append(linear.register_forward_hook(probe))
    try:
        (log_probs_T,) = model.target_log_probs([(model.prompt_text(edit.prompt), edit.target_new)])
    finally:
        for hook in hooks:
            hook.remove()
    deltas = torch.autograd.grad(-log_probs_T.mean(), list(probes.values()))
    return {
        name: OuterProducts(inputs_TI=inputs[name], deltas_TO=delta[0])
        for name, delta in zip(probes, deltas, strict=True)
    }
