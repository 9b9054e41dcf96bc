"""From the GGUF file of a Gemma 3 model to CTranslate2 models in int8: as it is, and with adapters merged in.

Each tensor is dequantised once, changed as each model needs it, and quantised anew; no model is ever held in
float32. ``python -m serac_gateway.models.language_models.gguf_conversion`` is the converter;
models/conversion.py runs it. gemma3_torch.py reads the same model.bin, by the names of its variables.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from serac_gateway.models.conversion import run_converter
from serac_gateway.models.language_models.conversion_request import CONVERTING, ConversionRequest, Target
from serac_gateway.models.language_models.gemma_tokenizer import special_token, tokenizer_json, vocabulary
from serac_gateway.models.language_models.gguf_file import Floats, GgufFile
from serac_gateway.models.language_models.lora import Adapter
from serac_gateway.models.language_models.smoothquant import load_activations, smooth_activations
from serac_gateway.models.progress import OnStep, Step

_LOCAL_ROPE_BASE = 10_000
"""Of windowed attention; the file has that of full attention only."""
_FULL_ATTENTION_EVERY = 6
"""The last of so many layers has full attention, the others have a window."""
_EMBEDDING = "token_embd.weight"
_ROWS_AT_ONCE = 1_024
"""Of the embedding matrix: 3 MB in float32, which stay in the processor's cache."""

_LINEAR = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Linear layers by their names in GGUF; adapters have transformers' names."""
_NORMS = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "attn_q_norm", "attn_k_norm")

_OPENING_SHARE, _TOKENIZER_SHARE, _LAYERS_SHARE = 0.12, 0.15, 0.46
_EMBEDDING_SHARE, _WRITING_SHARE = 0.11, 0.16
"""Of the time that a conversion takes, assembling the file included, as measured with one adapter."""


class Quantised(msgspec.Struct, frozen=True, kw_only=True):
    """A linear layer in int8 as CTranslate2 has it. *Shapes:* (O, I) and (O,)."""

    weight: NDArray[np.int8]
    scale: Floats
    """What the weights were multiplied by."""


def convert_gguf(path: Path, targets: Sequence[Target], on_step: OnStep = lambda step: None) -> None:
    """Write the folder of each of `targets`: the model and its tokenizer.json.

    Raises:
        ConfigError: An adapter is damaged or belongs to another model, or activations are damaged.
        OSError: A folder cannot be written.
        ValueError: The file is damaged.
        KeyError: It holds another kind of model.
    """
    gguf = GgufFile(path)
    models = [_Model(target, gguf) for target in targets]
    meter = _Meter(on_step)
    meter.add(_OPENING_SHARE)
    tokens, tokenizer = vocabulary(gguf.metadata), msgspec.json.encode(tokenizer_json(gguf.metadata))
    meter.add(_TOKENIZER_SHARE)
    for number in range(_layer_count(gguf)):
        dequantised = {name: gguf.tensor(f"blk.{number}.{name}.weight") for name in (*_LINEAR, *_NORMS)}
        for model in models:
            model.set_layer(number, {name: weight.copy() for name, weight in dequantised.items()})
        meter.add(_LAYERS_SHARE / _layer_count(gguf))
    embeddings = {
        to_int8: _quantised_embedding(gguf) if to_int8 else gguf.tensor(_EMBEDDING)
        for to_int8 in {model.to_int8 for model in models}
    }
    meter.add(_EMBEDDING_SHARE)
    for model in models:
        model.save(embeddings[model.to_int8], tokens, tokenizer)
        meter.add(_WRITING_SHARE / len(models))


class _Model:
    """A model that is being made; it keeps each layer as it will be written."""

    def __init__(self, target: Target, gguf: GgufFile) -> None:
        self._folder = Path(target.folder)
        self._gguf = gguf
        self._spec = _empty_spec(gguf)
        self._adapter = None if target.adapter is None else Adapter(Path(target.adapter))
        self._activations = None if target.activations is None else load_activations(Path(target.activations))
        if self._adapter is not None:
            self._adapter.check_fits(_linear_shapes(gguf))

    @property
    def to_int8(self) -> bool:
        return self._activations is not None

    def set_layer(self, number: int, weights: dict[str, Floats]) -> None:
        """Layer `number` has these weights before they are adapted; they are used up."""
        if self._adapter is not None:
            changed = set(self._adapter.modules())
            for name, module in _LINEAR.items():
                if (full_name := f"model.layers.{number}.{module}") in changed:
                    weights[name] += self._adapter.change(full_name)
        if self._activations is not None:
            smooth_activations(weights, self._activations[number])
        _set_layer(self._spec.decoder.layer[number], weights, to_int8=self.to_int8)

    def save(self, embedding: Floats | Quantised, tokens: list[str], tokenizer: bytes) -> None:
        """Write the folder."""
        decoder = self._spec.decoder
        _set_norm(decoder.layer_norm, self._gguf.tensor("output_norm.weight"))
        _set_linear(decoder.embeddings, embedding)
        decoder.projection.weight = decoder.embeddings.weight
        self._spec.register_vocabulary(tokens)
        self._spec.validate()
        decoder.projection.weight = "decoder/embeddings/weight"  # an alias: the two are tied
        self._folder.mkdir(parents=True, exist_ok=True)
        self._spec.save(str(self._folder))
        (self._folder / "tokenizer.json").write_bytes(tokenizer)


class _Meter:
    """Reports how much of the whole conversion is done."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._done = 0.0

    def add(self, share: float) -> None:
        self._done += share
        self._on_step(Step(CONVERTING, min(self._done, 1.0)))


def _layer_count(gguf: GgufFile) -> int:
    return int(gguf.metadata["gemma3.block_count"])


def _linear_shapes(gguf: GgufFile) -> dict[str, tuple[int, ...]]:
    return {
        f"model.layers.{number}.{module}": gguf.shape(f"blk.{number}.{name}.weight")
        for number in range(_layer_count(gguf))
        for name, module in _LINEAR.items()
    }


def _empty_spec(gguf: GgufFile) -> Any:  # noqa: ANN401
    """CTranslate2's description of this model, its weights still to be set."""
    specs = _import_specs()
    metadata = gguf.metadata
    heads, heads_kv, width, window = (
        metadata[f"gemma3.attention.{name}"]
        for name in ("head_count", "head_count_kv", "key_length", "sliding_window")
    )
    spec = specs.TransformerDecoderModelSpec.from_config(
        _layer_count(gguf),
        heads,
        activation=specs.Activation.GELUTanh,
        pre_norm=True,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=width,
        rotary_interleave=False,
        rotary_base=_LOCAL_ROPE_BASE,
        num_heads_kv=None if heads_kv == heads else heads_kv,
        head_dim=width,
        sliding_window=window,
        pre_post_layer_norm=True,
        qk_norm=True,
    )
    for number, layer in enumerate(spec.decoder.layer, start=1):
        if number % _FULL_ATTENTION_EVERY == 0:
            layer.self_attention.rotary_base = np.float32(metadata["gemma3.rope.freq_base"])
            layer.self_attention.sliding_window = np.int32(0)
    spec.decoder.scale_embeddings = True
    spec.decoder.start_from_zero_embedding = False
    for name in ("bos", "eos"):
        setattr(spec.config, f"{name}_token", special_token(metadata, name))
    spec.config.unk_token = special_token(metadata, "unknown")
    return spec


def _import_specs() -> Any:  # noqa: ANN401
    """The module ctranslate2.specs, without torch, which it imports if it can: numpy is enough here."""
    without_torch = sys.modules.setdefault("torch", None) is None  # type: ignore[arg-type]
    try:
        import ctranslate2.specs
    finally:
        if without_torch:
            del sys.modules["torch"]
    return ctranslate2.specs


def _set_layer(layer: Any, weights: dict[str, Floats], *, to_int8: bool) -> None:  # noqa: ANN401
    attention = layer.self_attention
    for norm, name in (
        (layer.input_layer_norm, "attn_norm"),
        (layer.post_attention_layer_norm, "post_attention_norm"),
        (layer.pre_feedforward_layer_norm, "ffn_norm"),
        (layer.post_feedforward_layer_norm, "post_ffw_norm"),
        (attention.q_norm, "attn_q_norm"),
        (attention.k_norm, "attn_k_norm"),
    ):
        _set_norm(norm, weights[name])
    read_together = np.concatenate([weights["attn_q"], weights["attn_k"], weights["attn_v"]])
    for linear, weight_OI in (
        (attention.linear[0], read_together),
        (attention.linear[1], weights["attn_output"]),
        (layer.ffn.linear_0, weights["ffn_gate"]),
        (layer.ffn.linear_0_noact, weights["ffn_up"]),
        (layer.ffn.linear_1, weights["ffn_down"]),
    ):
        _set_linear(linear, quantised(weight_OI) if to_int8 else weight_OI)


def _set_norm(norm: Any, weight: Floats) -> None:  # noqa: ANN401
    norm.gamma = weight - 1  # CTranslate2 adds one, as Gemma's authors do; GGUF has it added
    norm.layer_norm_use_residual = True


def _set_linear(linear: Any, weight: Floats | Quantised) -> None:  # noqa: ANN401
    if isinstance(weight, Quantised):
        linear.weight, linear.weight_scale = weight.weight, weight.scale
    else:
        linear.weight = weight


def quantised(weight_OI: Floats) -> Quantised:
    """`weight_OI` in int8, one scale a row, as CTranslate2's own converters have it. Changes its argument."""
    largest_O = np.maximum(weight_OI.max(1), -weight_OI.min(1))
    largest_O[largest_O == 0] = 127
    scale_O = np.float32(127) / largest_O
    weight_OI *= scale_O[:, None]
    return Quantised(weight=np.rint(weight_OI, out=weight_OI).astype(np.int8), scale=scale_O)


def _quantised_embedding(gguf: GgufFile) -> Quantised:
    """The embeddings, by blocks of rows: 700 MB in float32 are never held at once."""
    shape = gguf.shape(_EMBEDDING)
    weight_VD, scale_V = np.empty(shape, np.int8), np.empty(shape[0], np.float32)
    for begin in range(0, shape[0], _ROWS_AT_ONCE):
        rows = slice(begin, begin + _ROWS_AT_ONCE)
        block = quantised(gguf.tensor(_EMBEDDING, rows))
        weight_VD[rows], scale_V[rows] = block.weight, block.scale
    return Quantised(weight=weight_VD, scale=scale_V)


def _convert(request: ConversionRequest, on_step: OnStep) -> None:
    convert_gguf(Path(request.gguf), request.targets, on_step)


if __name__ == "__main__":
    run_converter(ConversionRequest, _convert)
