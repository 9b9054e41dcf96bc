"""Reads GGUF files, version 3: metadata, and tensors dequantised to float32.

The package gguf has a reader of its own. It makes an array of every entry of every list, which takes ten
seconds for a vocabulary of 262,144 tokens, so only its dequantisation is used.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_MAGIC: Final = b"GGUF"
_VERSION: Final = 3
_ALIGNMENT: Final = 32
"""Of the tensors' data in bytes, where the file names no other."""
_NUMBERS: Final = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
"""The number types of metadata, as `struct` names them."""
_STRING: Final = 8
_ARRAY: Final = 9


class _Tensor(msgspec.Struct, frozen=True):
    shape: tuple[int, ...]
    """Outermost dimension first, as numpy has it; the file has it the other way round."""
    type: GGMLQuantizationType
    offset: int
    """From the start of the file."""


class GgufFile:
    """An open file; tensors are read when they are asked for."""

    def __init__(self, path: Path) -> None:
        """Read the metadata.

        Raises:
            ValueError: It is no GGUF file of version 3, or it is cut off.
        """
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._position = 0
        try:
            magic, version, tensors, entries = self._take("4sIQQ")
            if (magic, version) != (_MAGIC, _VERSION):
                raise ValueError(f"it begins with {magic!r}, version {version}; only GGUF version 3 is read")
            self.metadata: dict[str, Any] = {self._string(): self._value() for _ in range(entries)}
            self._tensors = self._tensor_table(tensors)
        except (struct.error, UnicodeDecodeError) as exc:
            raise ValueError(f"its metadata ends early or is damaged: {exc}") from exc

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, as numpy has it: rows first.

        Raises:
            KeyError: There is no tensor of that name.
        """
        return self._tensors[name].shape

    def tensor(self, name: str, rows: slice = slice(None)) -> Floats:
        """A tensor, or some of its rows, in float32; the caller may write to it.

        Raises:
            KeyError: There is no tensor of that name.
            ValueError: The file is cut off in the tensor's data.
        """
        tensor = self._tensors[name]
        weights_a_block, bytes_a_block = GGML_QUANT_SIZES[tensor.type]
        row_bytes = tensor.shape[-1] // weights_a_block * bytes_a_block
        count = int(np.prod(tensor.shape[:-1], dtype=int))
        raw = np.frombuffer(self._bytes, np.uint8, count * row_bytes, tensor.offset)
        raw = raw.reshape(*tensor.shape[:-1], row_bytes)[rows]
        return np.array(dequantize(raw, tensor.type), dtype=np.float32)

    def _tensor_table(self, count: int) -> dict[str, _Tensor]:
        tensors = {}
        for _ in range(count):
            name = self._string()
            (dimensions,) = self._take("I")
            *shape, kind, offset = self._take(f"{dimensions}QIQ")
            tensors[name] = _Tensor(tuple(reversed(shape)), GGMLQuantizationType(kind), offset)
        alignment = self.metadata.get("general.alignment", _ALIGNMENT)
        start = -(-self._position // alignment) * alignment
        return {
            name: msgspec.structs.replace(tensor, offset=start + tensor.offset)
            for name, tensor in tensors.items()
        }

    def _value(self) -> Any:  # noqa: ANN401
        (kind,) = self._take("I")
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._take(_NUMBERS[kind])[0]
        kind, length = self._take("IQ")
        if kind == _STRING:
            return [self._string() for _ in range(length)]
        return list(self._take(f"{length}{_NUMBERS[kind]}"))

    def _string(self) -> str:
        (length,) = _LENGTH.unpack_from(self._bytes, self._position)
        begin = self._position + _LENGTH.size
        self._position = begin + length
        return self._bytes[begin : self._position].decode()

    def _take(self, layout: str) -> tuple[Any, ...]:
        numbers = struct.unpack_from(f"<{layout}", self._bytes, self._position)
        self._position += struct.calcsize(f"<{layout}")
        return numbers


_LENGTH = struct.Struct("<Q")
