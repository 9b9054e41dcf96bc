"""Embeddings as arrays and as stored bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Unit-length embeddings. *Shape:* (number of texts, D)."""


def vectors_to_bytes(vectors_FD: Vectors) -> bytes:
    """Row-major little-endian float32."""
    return np.ascontiguousarray(vectors_FD, dtype="<f4").tobytes()


def vectors_from_bytes(data: bytes, width: int) -> Vectors:
    """The inverse of `vectors_to_bytes`. *Shape:* (F, width).

    Raises:
        ValueError: `data` is no whole number of rows.
    """
    return np.frombuffer(data, dtype="<f4").reshape(-1, width).astype(np.float32, copy=False)
