"""Tiny files of the layout that serac_gateway/models/e5/file.py reads, for tests."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import PreTrainedModel

BLOCK = 32
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def q4_0(values: NDArray[np.float32]) -> bytes:
    """`values` in blocks of 32: a float16 scale and 16 bytes of nibbles. The largest becomes -8."""
    data = b""
    for block in values.reshape(-1, BLOCK):
        largest = block[np.abs(block).argmax()]
        scale = np.float16(largest / -8)
        whole = np.zeros(BLOCK) if scale == 0 else np.rint(block / np.float32(scale))
        nibbles = np.clip(whole + 8, 0, 15).astype(np.uint8)
        data += scale.tobytes() + (nibbles[:16] | nibbles[16:] << 4).tobytes()
    return data


def write_e5_file(
    path: Path,
    *,
    pieces: Sequence[tuple[str, float]],
    hidden: int = 32,
    layers: int = 2,
    inner: int = 64,
    positions: int = 48,
    seed: int = 0,
    magic: bytes = b"E5S1",
) -> dict[str, NDArray[np.float32]]:
    """Write a file with random weights and the vocabulary `SPECIAL` and `pieces`.

    Returns:
        The tensors before they were rounded to 4 bits.
    """
    rng = np.random.default_rng(seed)
    vocabulary = [*((piece, 0.0) for piece in SPECIAL), *pieces]
    words = len(vocabulary) + 3  # the real table has more rows than pieces too
    shapes: dict[str, tuple[int, ...]] = {
        "emb.word": (words, hidden), "emb.pos": (positions, hidden), "emb.type": (2, hidden),
        "emb.ln.w": (hidden,), "emb.ln.b": (hidden,),
    }  # fmt: skip
    for layer in range(layers):
        for name, (outputs, inputs) in {
            "q": (hidden, hidden), "k": (hidden, hidden), "v": (hidden, hidden), "ao": (hidden, hidden),
            "fi": (inner, hidden), "fo": (hidden, inner),
        }.items():  # fmt: skip
            shapes |= {f"l{layer}.{name}.w": (outputs, inputs), f"l{layer}.{name}.b": (outputs,)}
        for name in ("aln", "oln"):
            shapes |= {f"l{layer}.{name}.w": (hidden,), f"l{layer}.{name}.b": (hidden,)}
    tensors = {name: rng.normal(scale=0.3, size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, values in tensors.items():
        if name.endswith("ln.w"):
            values += 1
    data = magic + struct.pack("<I7ifi", 1, hidden, layers, 2, inner, words, positions, 2, 1e-12, BLOCK)
    blob = b"".join(piece.encode() for piece, _ in vocabulary)
    offsets = np.cumsum([0, *(len(piece.encode()) for piece, _ in vocabulary)]).astype("<u4")
    data += struct.pack("<5iQ", len(vocabulary), 0, 2, 1, 3, len(blob))
    data += offsets.tobytes() + np.array([score for _, score in vocabulary], "<f4").tobytes() + blob
    data += struct.pack("<iI", 1, 5) + bytes(5)
    written = {
        name: (1, q4_0(values))
        if values.ndim == 2 and name not in ("emb.pos", "emb.type")
        else (0, values.tobytes())
        for name, values in tensors.items()
    }
    begin = len(data) + 4 + sum(2 + len(name) + 21 for name in written)
    data += struct.pack("<i", len(written))
    for name, (kind, raw) in written.items():
        data += struct.pack("<H", len(name)) + name.encode()
        data += struct.pack("<BIQQ", kind, tensors[name].size, begin, len(raw))
        begin += len(raw)
    path.write_bytes(data + b"".join(raw for _, raw in written.values()))
    return tensors


def save_halved(model: PreTrainedModel, folder: Path) -> Path:
    """Write trained weights as they ship: float16, and without the word table."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    state = {name: values.half() for name, values in model.state_dict().items() if "word_emb" not in name}
    save_file(state, folder / "model.safetensors")
    return folder
