"""Exact inner-product search that reads rows in half precision first, and in full those that may be nearest.

An exact search reads every row, and takes as long as that reading does: half the bytes take a third of the
time, and a whole search 60 %. Rounding to half precision moves a similarity by 2^-11 at most (times the
norms), so a row that is that far behind the k-th cannot be among the nearest; where too many are closer than
that, all rows are read in full.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from serac_gateway.domain.vectors import Vectors

_ROUNDING = 2.0**-11
"""The largest relative error of a number in half precision."""
_OTHER_ERRORS = 1e-5
"""Of sums in single precision, and of numbers too small for half precision's full digits."""


class Fp16Rows:
    """Rows in full, and beside them in half precision: half as much memory again. See `FlatRows`."""

    def __init__(self, rows_RD: Vectors) -> None:
        """Keep `rows_RD`, contiguous, as they are."""
        self._rows_RD = rows_RD
        self.ntotal = len(rows_RD)
        self._half = faiss.IndexScalarQuantizer(
            rows_RD.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self._half.train(rows_RD)  # learns nothing, but faiss demands the call
        self._half.add(rows_RD)
        self._largest_norm = float(np.linalg.norm(rows_RD, axis=1).max())

    def search(self, x: Vectors, k: int, /) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `FlatRows.search`."""
        read_in_full = 2 * k
        if read_in_full >= self.ntotal:
            return self._exhaustive(x, k)
        rounded_BF, rows_BF = self._half.search(x, read_in_full)
        similarities_BF = np.einsum("bd,bfd->bf", x, self._rows_RD[rows_BF])
        similarities_BK, rows_BK = _nearest(similarities_BF, rows_BF, k)
        error_B = np.linalg.norm(x, axis=1) * self._largest_norm * _ROUNDING + _OTHER_ERRORS
        unsure_B = similarities_BK[:, -1] < rounded_BF[:, -1] + error_B
        if unsure_B.any():
            similarities_BK[unsure_B], rows_BK[unsure_B] = self._exhaustive(x[unsure_B], k)
        return similarities_BK, rows_BK

    def reconstruct_n(self, n0: int, ni: int, /) -> Vectors:
        """See `FlatRows.reconstruct_n`."""
        return self._rows_RD[n0 : n0 + ni]

    def _exhaustive(self, x: Vectors, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        similarities_BR = np.stack([self._rows_RD @ query_D for query_D in x])
        rows_BK = np.argpartition(-similarities_BR, k - 1, axis=1)[:, :k]
        return _nearest(np.take_along_axis(similarities_BR, rows_BK, axis=1), rows_BK, k)


def _nearest(
    similarities_BF: NDArray[np.float32], rows_BF: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `k` best of each row, best first."""
    order_BK = np.argsort(-similarities_BF, axis=1, kind="stable")[:, :k]
    return (
        np.take_along_axis(similarities_BF, order_BK, axis=1),
        np.take_along_axis(rows_BF, order_BK, axis=1),
    )
