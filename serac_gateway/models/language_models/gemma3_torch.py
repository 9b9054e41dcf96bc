"""Gemma 3 in torch, with the weights of a folder that CTranslate2 runs: for long prompts, and for logits.

CTranslate2 4.8 limits a windowed layer by dropping keys from its cache, which is right for one token at a
time and wrong for a prompt longer than the window: it has no mask for the far end of the window. Here a
prompt is read in parts, with both ends masked. Linear layers compute as CTranslate2's do: int8 weights with a
scale per row, activations rounded to int8 with a scale per token, sums in int32.

Shape suffixes: T tokens read at once, S tokens attended to, C channels of an input, N of an output, H heads,
G of them to a head of keys, K heads of keys, D width of a head, V vocabulary.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from serac_gateway.errors import ConfigError
from serac_gateway.models.language_models.base import GeneratedToken, Sampling
from serac_gateway.models.language_models.sampling import TokenPicker

TOKENS_AT_ONCE: Final = 256
"""Of a prompt: more would meet more keys beyond their window, fewer would load the weights too often."""

_BINARY_VERSION = 6
_DTYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16)
"""By the number that model.bin has for a type."""
_GELU_TANH = 1
_NORM_EPSILON = 1e-6
_SMALLEST_SCALE = 1e-12


class Gemma3:
    """A Gemma 3 decoder. Thread-safe. Runs on as many threads as torch is set to."""

    def __init__(self, folder: Path, *, end_ids: Collection[int]) -> None:
        """Map the weights of `folder`/model.bin into memory; they are read when they are used.

        Args:
            folder: A model of CTranslate2.
            end_ids: Tokens that end a text.

        Raises:
            ConfigError: It is no Gemma 3 in CTranslate2's format.
        """
        self._end_ids = frozenset(end_ids)
        path = folder / "model.bin"
        try:
            variables = read_variables(path)
            self._heads = int(variables["decoder/num_heads"])
            self._embeddings = _Linear(variables, "decoder/embeddings")
            is_tied = variables["decoder/projection/weight"] is variables["decoder/embeddings/weight"]
            self._projection = self._embeddings if is_tied else _Linear(variables, "decoder/projection")
            self._output_norm_C = _norm_weight(variables, "decoder/layer_norm")
            self._layers = [
                _Layer.read(variables, f"decoder/layer_{index}", self._heads)
                for index in range(sum(name.endswith("/ffn/linear_1/weight") for name in variables))
            ]
            if int(variables["decoder/activation"]) != _GELU_TANH:
                raise ValueError("its activation is not the tanh form of GELU")
        except (LookupError, ValueError, OSError, struct.error) as exc:
            raise ConfigError(
                f"cannot read {str(path)!r} as a Gemma 3 model of CTranslate2: {exc}; delete the folder to"
                " have it made again"
            ) from exc

    def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, limit: int, cancelled: Callable[[], bool]
    ) -> Iterator[GeneratedToken]:
        """Continue a prompt of one token or more by at most `limit`; the text's end token is not given."""
        cache = _KeyValueCache(len(prompt_ids) + limit, len(self._layers))
        *before, last = prompt_ids
        for start in range(0, len(before), TOKENS_AT_ONCE):
            if cancelled():
                return
            self._read(before[start : start + TOKENS_AT_ONCE], cache)
        picker = TokenPicker(sampling)
        for _ in range(limit):
            token = picker.pick(self._logits(last, cache))
            if token.token_id in self._end_ids:
                return
            yield token
            last = token.token_id

    @torch.inference_mode()
    def _logits(self, token_id: int, cache: _KeyValueCache) -> Tensor:
        """Read one token; the logits of the one that follows it. *Shape:* (V,)."""
        hidden_1C = self._read([token_id], cache)
        return self._projection(_normed(hidden_1C, self._output_norm_C))[0]

    @torch.inference_mode()
    def _read(self, token_ids: Sequence[int], cache: _KeyValueCache) -> Tensor:
        """The last layer's output. *Shape:* (T, C)."""
        hidden_TC = self._embeddings.rows(torch.tensor(token_ids))
        hidden_TC *= math.sqrt(hidden_TC.shape[1])
        rotations = {
            base: _rotation(cache.tokens, len(token_ids), self._layers[0].head_width, base)
            for base in {layer.rotary_base for layer in self._layers}
        }
        for index, layer in enumerate(self._layers):
            normed_TC = _normed(hidden_TC, layer.input_norm_C)
            attended_TC = self._attend(layer, index, normed_TC, rotations[layer.rotary_base], cache)
            hidden_TC = hidden_TC + _normed(layer.attention_output(attended_TC), layer.attention_norm_C)
            normed_TC = _normed(hidden_TC, layer.feedforward_input_norm_C)
            gate_TN = functional.gelu(layer.gate(normed_TC), approximate="tanh")
            fed_TC = layer.down(gate_TN.mul_(layer.up(normed_TC)))
            hidden_TC = hidden_TC + _normed(fed_TC, layer.feedforward_norm_C)
        cache.tokens += len(token_ids)
        return hidden_TC

    def _attend(
        self,
        layer: _Layer,
        index: int,
        input_TC: Tensor,
        rotation: tuple[Tensor, Tensor],
        cache: _KeyValueCache,
    ) -> Tensor:
        tokens, width = len(input_TC), layer.head_width
        key_heads = layer.key_heads
        queries_TN, keys_TN, values_TN = torch.split(
            layer.queries_keys_values(input_TC),
            [self._heads * width, key_heads * width, key_heads * width],
            1,
        )
        queries_HTD = queries_TN.view(tokens, self._heads, width).transpose(0, 1)
        keys_KTD = keys_TN.view(tokens, key_heads, width).transpose(0, 1)
        values_KTD = values_TN.view(tokens, key_heads, width).transpose(0, 1)
        queries_HTD = _rotated(_normed(queries_HTD, layer.query_norm_D), rotation)
        keys_KTD = _rotated(_normed(keys_KTD, layer.key_norm_D), rotation)
        keys_KSD = _extended(cache.keys_KSD, index, keys_KTD, layer.window, cache)
        values_KSD = _extended(cache.values_KSD, index, values_KTD, layer.window, cache)
        group = self._heads // key_heads
        if tokens == 1:  # a group's queries as the rows of one matrix: its keys are read once, not G times
            mask_TS = None
            queries_HTD = queries_HTD.reshape(key_heads, group, width)
        else:
            mask_TS = _visible(tokens, keys_KSD.shape[1], layer.window)
            keys_KSD, values_KSD = _for_each_head(keys_KSD, group), _for_each_head(values_KSD, group)
        attended_HTD = functional.scaled_dot_product_attention(
            queries_HTD[None], keys_KSD[None], values_KSD[None], attn_mask=mask_TS
        )
        return attended_HTD.reshape(self._heads, tokens, width).transpose(0, 1).reshape(tokens, -1)


class _KeyValueCache:
    """Keys and values of the tokens read so far, as far as later tokens attend to them."""

    def __init__(self, capacity: int, layers: int) -> None:
        """For at most `capacity` tokens; memory is taken as they come."""
        self.capacity = capacity
        self.tokens = 0
        """Read so far."""
        self.keys_KSD: list[Tensor | None] = [None] * layers
        self.values_KSD: list[Tensor | None] = [None] * layers


class _Linear:
    """A linear layer without bias, of int8 weights with a scale per row, or of float32."""

    def __init__(self, variables: Mapping[str, Tensor], name: str) -> None:
        self._weight_NC = variables[f"{name}/weight"]
        scale_N = variables.get(f"{name}/weight_scale")
        self._unit_N = None if scale_N is None else 1 / scale_N.float()
        """What 1 of a row's int8 stands for; None: the weights are floats."""

    def __call__(self, input_TC: Tensor) -> Tensor:
        """*Shape:* (T, C) to (T, N)."""
        if self._unit_N is None:
            return functional.linear(input_TC, self._weight_NC)
        unit_T1 = input_TC.abs().amax(1, keepdim=True).clamp_(min=_SMALLEST_SCALE) / 127
        rounded_TC = (input_TC / unit_T1).round_().to(torch.int8)
        # torch's own functions for int8 take bfloat16 or quantise all tokens with one scale.
        sums_TN = torch._int_mm(rounded_TC, self._weight_NC.t())
        return sums_TN.float().mul_(unit_T1).mul_(self._unit_N)

    def rows(self, indices_T: Tensor) -> Tensor:
        """Rows of the weights in float32. *Shape:* (T, C)."""
        rows_TC = self._weight_NC[indices_T].float()
        return rows_TC if self._unit_N is None else rows_TC.mul_(self._unit_N[indices_T, None])


class _Layer(msgspec.Struct, frozen=True, kw_only=True):
    head_width: int
    key_heads: int
    window: int
    """Tokens that a token attends to, itself included; 0: all before it."""
    rotary_base: float
    queries_keys_values: _Linear
    attention_output: _Linear
    gate: _Linear
    up: _Linear
    down: _Linear
    query_norm_D: Tensor
    key_norm_D: Tensor
    input_norm_C: Tensor
    attention_norm_C: Tensor
    feedforward_input_norm_C: Tensor
    feedforward_norm_C: Tensor

    @classmethod
    def read(cls, variables: Mapping[str, Tensor], name: str, heads: int) -> _Layer:
        attention = f"{name}/self_attention"
        return cls(
            head_width=int(variables[f"{attention}/head_dim"]),
            key_heads=int(variables.get(f"{attention}/num_heads_kv", heads)),
            window=int(variables[f"{attention}/sliding_window"]),
            rotary_base=float(variables[f"{attention}/rotary_base"]),
            queries_keys_values=_Linear(variables, f"{attention}/linear_0"),
            attention_output=_Linear(variables, f"{attention}/linear_1"),
            gate=_Linear(variables, f"{name}/ffn/linear_0"),
            up=_Linear(variables, f"{name}/ffn/linear_0_noact"),
            down=_Linear(variables, f"{name}/ffn/linear_1"),
            query_norm_D=_norm_weight(variables, f"{attention}/q_norm"),
            key_norm_D=_norm_weight(variables, f"{attention}/k_norm"),
            input_norm_C=_norm_weight(variables, f"{name}/input_layer_norm"),
            attention_norm_C=_norm_weight(variables, f"{name}/post_attention_layer_norm"),
            feedforward_input_norm_C=_norm_weight(variables, f"{name}/pre_feedforward_layer_norm"),
            feedforward_norm_C=_norm_weight(variables, f"{name}/post_feedforward_layer_norm"),
        )


def _norm_weight(variables: Mapping[str, Tensor], name: str) -> Tensor:
    return 1 + variables[f"{name}/gamma"].float()  # Gemma's norms multiply by one plus the weight


def _normed(input_C: Tensor, weight_C: Tensor) -> Tensor:
    return functional.rms_norm(input_C, weight_C.shape, weight_C, _NORM_EPSILON)


def _rotation(start: int, tokens: int, width: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines for `tokens` positions from `start` (arXiv 2104.09864). *Shape:* (T, D / 2) each."""
    frequencies = base ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    angles = torch.arange(start, start + tokens, dtype=torch.float32)[:, None] * frequencies
    return angles.cos(), angles.sin()


def _rotated(input_HTD: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cosines, sines = rotation
    first, second = input_HTD.chunk(2, dim=-1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)


def _extended(
    kept: list[Tensor | None], index: int, new_KTD: Tensor, window: int, cache: _KeyValueCache
) -> Tensor:
    """All keys (or values) that the new tokens attend to, and the new ones themselves. *Shape:* (K, S, D)."""
    old_KSD = kept[index]
    if window:
        all_KSD = new_KTD if old_KSD is None else torch.cat((old_KSD, new_KTD), dim=1)
        kept[index] = all_KSD[:, max(0, all_KSD.shape[1] - window + 1) :]
        return all_KSD
    if old_KSD is None:  # memory that is not written to is not taken
        old_KSD = kept[index] = torch.empty(new_KTD.shape[0], cache.capacity, new_KTD.shape[2])
    end = cache.tokens + new_KTD.shape[1]
    old_KSD[:, cache.tokens : end] = new_KTD
    return old_KSD[:, :end]


def _for_each_head(keys_KSD: Tensor, group: int) -> Tensor:
    """The keys (or values) of each head of queries; with one head of keys no copy. *Shape:* (H, S, D)."""
    key_heads, attended, width = keys_KSD.shape
    return keys_KSD[:, None].expand(-1, group, -1, -1).reshape(key_heads * group, attended, width)


def _visible(tokens: int, attended: int, window: int) -> Tensor:
    """Which of `attended` tokens each of the last `tokens` of them sees. *Shape:* (T, S)."""
    queries_T1 = torch.arange(attended - tokens, attended)[:, None]
    keys_S = torch.arange(attended)
    seen_TS = keys_S <= queries_T1
    return seen_TS & (keys_S > queries_T1 - window) if window else seen_TS


def read_variables(path: Path) -> dict[str, Tensor]:
    """The variables of a CTranslate2 model.bin, by name; large ones stay in the file, mapped into memory.

    Raises:
        ValueError: It has another version of the format.
        OSError: The file cannot be read.
        struct.error: The file is cut short.
    """
    with path.open("rb") as file:
        # Copy on write: torch warns of memory that it may not write to.
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    at = 0

    def number(kind: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{kind}", content, at)
        at += struct.calcsize(kind)
        return int(value)

    def text() -> str:
        nonlocal at
        size = number("H")
        at += size
        return content[at - size : at - 1].decode()

    if (version := number("I")) != _BINARY_VERSION:
        raise ValueError(f"it has version {version} of the format, not {_BINARY_VERSION}")
    text()  # the name of the specification
    number("I")  # its revision
    variables: dict[str, Tensor] = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        dtype = _DTYPES[number("B")]
        size = number("I")
        if dtype is torch.int8:
            flat = torch.frombuffer(content, dtype=dtype, count=size, offset=at)
        else:  # small, and at addresses that are no multiples of their size
            flat = torch.frombuffer(bytearray(content[at : at + size]), dtype=dtype)
        variables[name] = flat.view(shape)
        at += size
    for _ in range(number("I")):  # variables of equal values are written once
        name = text()
        variables[name] = variables[text()]
    return variables
