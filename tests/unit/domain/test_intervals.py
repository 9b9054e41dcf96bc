"""Intervals against published numbers, and what they must hold for any data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serac_gateway.domain.intervals import (
    Z_999,
    Interval,
    median,
    median_difference,
    share_difference,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe 1998 (two-sided intervals for the single proportion), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_as_published(successes: int, trials: int, low: float, high: float) -> None:
    interval = wilson(successes, trials)
    assert interval is not None
    assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [  # Newcombe 1998 (interval estimation for the difference), table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0),
        ((5, 56), (0, 29), -0.0381, 0.1926),
    ],
)
def test_the_difference_is_newcombes(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    interval = share_difference(first, second)
    assert interval is not None
    assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_without_data_there_is_no_interval() -> None:
    assert wilson(0, 0) is None
    assert share_difference((0, 0), (3, 4)) is None
    assert median([]) is None
    assert median_difference([1.0], []) is None


def test_the_bootstrap_covers_the_median_about_as_often_as_it_says_and_repeats_itself() -> None:
    """200 samples of 60 from an exponential distribution, whose median is ln 2."""
    random = np.random.default_rng(7)
    intervals = [median(random.exponential(size=60).tolist()) for _ in range(200)]
    covered = sum(each is not None and each.low <= np.log(2) <= each.high for each in intervals)
    assert 180 <= covered <= 200
    values = random.exponential(size=30).tolist()
    assert median(values) == median(values)


def test_a_difference_of_medians_has_the_sign_of_first_minus_second() -> None:
    interval = median_difference([10.0, 11.0, 12.0] * 20, [1.0, 2.0, 3.0] * 20)
    assert interval == Interval(estimate=9.0, low=interval.low, high=interval.high)  # type: ignore[union-attr]
    assert interval.low > 0  # type: ignore[union-attr]


@given(st.integers(0, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_estimate_and_grows_with_its_level(sample: tuple[int, int]) -> None:
    interval, wider = wilson(*sample), wilson(*sample, z=Z_999)
    if sample[1] == 0:
        assert interval is None
        return
    assert interval is not None
    assert wider is not None
    assert 0 <= wider.low <= interval.low + 1e-12 <= interval.estimate + 2e-12
    assert interval.estimate - 1e-12 <= interval.high <= wider.high + 1e-12 <= 1 + 1e-12
