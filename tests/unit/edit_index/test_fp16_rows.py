"""What is read in half precision first is found as if everything had been read in full."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.fp16_rows import Fp16Rows

WIDTH = 384


def unit(rows_RD: Vectors) -> Vectors:
    return (rows_RD / np.linalg.norm(rows_RD, axis=1, keepdims=True)).astype(np.float32)


def scattered(rng: np.random.Generator) -> Vectors:
    return unit(rng.normal(size=(6_000, WIDTH)))


def crowded(rng: np.random.Generator) -> Vectors:
    """Hundreds of rows that half precision cannot distinguish."""
    return unit(np.ones(WIDTH) + 1e-4 * rng.normal(size=(6_000, WIDTH)))


def of_any_length(rng: np.random.Generator) -> Vectors:
    return scattered(rng) * rng.uniform(0.1, 30, size=(6_000, 1)).astype(np.float32)


@pytest.mark.parametrize("make", [scattered, crowded, of_any_length])
@pytest.mark.parametrize("k", [1, 32, 2_999, 3_000, 6_000])
def test_the_nearest_are_those_of_a_search_in_full(
    make: Callable[[np.random.Generator], Vectors], k: int
) -> None:
    rng = np.random.default_rng(7)
    rows_RD = make(rng)
    queries_BD = unit(rows_RD[:5] + 0.02 * rng.normal(size=(5, WIDTH)))
    similarities_BK, rows_BK = Fp16Rows(rows_RD).search(queries_BD, k)
    expected_BR = np.sort(queries_BD.astype(np.float64) @ rows_RD.astype(np.float64).T, axis=1)[:, ::-1]
    scale = float(np.linalg.norm(rows_RD, axis=1).max())
    assert np.allclose(similarities_BK, expected_BR[:, :k], atol=1e-6 * scale)
    exact_BK = np.einsum("bd,bkd->bk", queries_BD, rows_RD[rows_BK])
    assert np.allclose(similarities_BK, exact_BK, atol=1e-6 * scale)
    assert all(len(set(row.tolist())) == k for row in rows_BK)


def test_rows_are_given_back_as_they_came() -> None:
    rows_RD = scattered(np.random.default_rng(8))
    assert np.array_equal(Fp16Rows(rows_RD).reconstruct_n(10, 20), rows_RD[10:30])
