"""Measures the activations by which the embedded Gemma is smoothed before it is converted to int8.

They ship with the weights: measuring takes half a minute and torch, which a first start does without.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from serac_gateway.models.language_models.embedded_gemma import assembled_gguf
from serac_gateway.models.language_models.lora import merge_adapter
from serac_gateway.models.language_models.smoothquant import LayerActivations, save_activations
from training.embedded_model import load_gguf

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


def write_activations(out: Path, *, adapter: Path | None) -> None:
    """Measure the embedded Gemma, with `adapter` merged in if there is one, and write `out`.

    Raises:
        ConfigError: The embedded model or the adapter is damaged.
    """
    with tempfile.TemporaryDirectory() as work, assembled_gguf(Path(work)) as gguf:
        model, tokenizer = load_gguf(gguf)
    if adapter is not None:
        merge_adapter(model, adapter)
    save_activations(measured_activations(model, tokenizer), out)


@torch.no_grad()
def measured_activations(model: Any, tokenizer: Any) -> list[LayerActivations]:  # noqa: ANN401
    """Of each layer of `model`, a Gemma3ForCausalLM, over ordinary texts."""
    largest: dict[nn.Module, torch.Tensor] = {}

    def look(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        inputs_I = inputs[0].abs().flatten(0, -2).amax(0)
        largest[module] = torch.maximum(largest.get(module, inputs_I), inputs_I)

    measured = [
        module
        for layer in model.model.layers
        for module in (layer.self_attn.q_proj, layer.mlp.gate_proj, layer.mlp.down_proj)
    ]
    hooks: list[Callable[[], None]] = [module.register_forward_pre_hook(look).remove for module in measured]
    for text in _TEXTS:
        model(torch.tensor([tokenizer(text).input_ids]))
    for remove in hooks:
        remove()
    inputs = [largest[module].numpy().astype(np.float32) for module in measured]
    return [
        LayerActivations(attention_I=attention_I, mlp_I=mlp_I, down_I=down_I)
        for attention_I, mlp_I, down_I in zip(inputs[0::3], inputs[1::3], inputs[2::3], strict=True)
    ]
