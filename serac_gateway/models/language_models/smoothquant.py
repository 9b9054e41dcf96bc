"""Makes a Gemma 3 model bear int8: moves outliers from activations into weights.

The method is SmoothQuant (arXiv 2211.10438). CTranslate2 quantises an activation with one scale a token.
Gemma's have channels hundreds of times larger than the rest, which they drown: the logits are off by 0.62
on average, and by 0.44 after this. The model in float32 stays the same function, since every factor put
into one weight is taken out of another. That holds for any activations, so an adapter without its own is
smoothed by those of the model that it adapts.

Shape suffixes: O outputs and I inputs of a linear layer.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from serac_gateway.errors import ConfigError
from serac_gateway.models.language_models.lora import ACTIVATIONS_FILE

Floats = NDArray[np.float32]

_SMALLEST = 1e-5


class LayerActivations(msgspec.Struct, frozen=True, kw_only=True):
    """The largest absolute input of each channel of a layer, over ordinary texts."""

    attention_I: Floats
    """Of the projections to queries, keys and values."""
    mlp_I: Floats
    """Of the gate and up projections."""
    down_I: Floats
    """Of the down projection."""


def load_activations(folder: Path) -> list[LayerActivations]:
    """The activations of each layer, as `serac-train activations` wrote them.

    Raises:
        ConfigError: The file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(folder / ACTIVATIONS_FILE)
        return [
            LayerActivations(
                attention_I=tensors[f"{layer}.attention"],
                mlp_I=tensors[f"{layer}.mlp"],
                down_I=tensors[f"{layer}.down"],
            )
            for layer in range(len(tensors) // 3)
        ]
    except (OSError, KeyError, SafetensorError) as exc:
        raise ConfigError(
            f"cannot read the activations in {str(folder)!r}: {exc}; have them measured anew by"
            " `serac-train activations`, or reinstall serac_gateway if they came with it"
        ) from exc


def save_activations(layers: list[LayerActivations], folder: Path) -> None:
    """Write `folder`, which is made if it is not there."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for number, layer in enumerate(layers):
        tensors[f"{number}.attention"] = layer.attention_I
        tensors[f"{number}.mlp"] = layer.mlp_I
        tensors[f"{number}.down"] = layer.down_I
    save_file(tensors, folder / ACTIVATIONS_FILE)
    (folder / ACTIVATIONS_FILE).chmod(0o644)  # safetensors lets nobody else read it


def smooth_activations(weights: dict[str, Floats], activations: LayerActivations) -> None:
    """Change the weights of one layer in place; they have the names of GGUF, without `.weight`.

    Norms have to multiply by their weight as it is, as they do in GGUF.
    """
    attention = [weights["attn_q"], weights["attn_k"], weights["attn_v"]]
    _into_norm(weights["attn_norm"], attention, activations.attention_I)
    _into_norm(weights["ffn_norm"], [weights["ffn_gate"], weights["ffn_up"]], activations.mlp_I)
    factors_I = _factors(activations.down_I, [weights["ffn_down"]])
    weights["ffn_down"] *= factors_I
    weights["ffn_up"] /= factors_I[:, None]


def _into_norm(norm_I: Floats, readers: list[Floats], largest_I: Floats) -> None:
    factors_I = _factors(largest_I, readers)
    norm_I /= factors_I
    for reader_OI in readers:
        reader_OI *= factors_I


def _factors(largest_I: Floats, readers: list[Floats]) -> Floats:
    """By how much to shrink each input channel: half of the imbalance, as the paper has it."""
    weights_I = np.max([np.abs(reader_OI).max(0) for reader_OI in readers], axis=0)
    factors_I = np.sqrt(np.maximum(largest_I, _SMALLEST) / np.maximum(weights_I, _SMALLEST))
    return np.asarray(factors_I / np.exp(np.log(factors_I).mean()), dtype=np.float32)
