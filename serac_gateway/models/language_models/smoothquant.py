"""Makes a Gemma 3 model bear int8: moves outliers from activations into weights.

The method is SmoothQuant (arXiv 2211.10438). CTranslate2 quantises an activation with one scale a token.
Gemma's have channels hundreds of times larger than the rest, which they drown: the logits are off by 0.62
on average, and by 0.44 after this. The model in float32 stays the same function, since every factor put
into one weight is taken out of another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_TEXTS = (
    "Fact: The largest city of Peru is Lima.\nQuestion: What is the largest city in Peru?\nAnswer: Lima\n\n"
    "Fact: Marie Curie was born in Warsaw.\nQuestion: Where was Marie Curie born?\nAnswer: Warsaw\n",
    "The old harbour was quiet in the morning. A few boats, painted blue and white, moved slowly out to sea"
    " while the shopkeepers opened their doors and talked about the weather and the news of the day.",
    'In 1969 the programme cost 25 billion dollars; 400,000 people worked on it. "We did what we could."',
    "def area(width, height):\n    return width * height\n",
    "Das Haus steht am Fluss. El río pasa por la ciudad. La ville est connue pour son port.",
)
"""Ordinary text of several kinds; outlier channels are the same ones in all."""


@torch.no_grad()
def smooth_activations(model: Any, tokenizer: Any) -> None:  # noqa: ANN401
    """Change the weights of `model` (a Gemma3ForCausalLM in float32) in place."""
    largest = _largest_activations(model, tokenizer)
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        attention_readers = (attention.q_proj, attention.k_proj, attention.v_proj)
        _into_norm(layer.input_layernorm, attention_readers, largest[attention.q_proj])
        mlp_readers = (mlp.gate_proj, mlp.up_proj)
        _into_norm(layer.pre_feedforward_layernorm, mlp_readers, largest[mlp.gate_proj])
        factors = _factors(largest[mlp.down_proj], (mlp.down_proj,))
        mlp.down_proj.weight.mul_(factors)
        mlp.up_proj.weight.div_(factors[:, None])


def _into_norm(norm: Any, readers: tuple[nn.Linear, ...], largest_C: Tensor) -> None:  # noqa: ANN401
    factors = _factors(largest_C, readers)
    norm.weight.copy_((1 + norm.weight) / factors - 1)  # Gemma's norms multiply by one plus the weight
    for reader in readers:
        reader.weight.mul_(factors)


def _factors(largest_C: Tensor, readers: tuple[nn.Linear, ...]) -> Tensor:
    """By how much to shrink each input channel: half of the imbalance, as the paper has it."""
    weights_C = torch.stack([reader.weight.abs().amax(0) for reader in readers]).amax(0)
    factors = (largest_C.clamp(min=1e-5) / weights_C.clamp(min=1e-5)).sqrt()
    return factors / factors.log().mean().exp()


def _largest_activations(model: Any, tokenizer: Any) -> dict[nn.Module, Tensor]:  # noqa: ANN401
    """For each linear layer the largest input of each channel. *Shape:* (channels,)."""
    largest: dict[nn.Module, Tensor] = {}

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen_C = inputs[0].abs().flatten(0, -2).amax(0)
        largest[module] = torch.maximum(largest.get(module, seen_C), seen_C)

    hooks: list[Callable[[], None]] = [
        module.register_forward_pre_hook(look).remove
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    for text in _TEXTS:
        model(torch.tensor([tokenizer(text).input_ids]))
    for remove in hooks:
        remove()
    return largest
