"""The metrics against values known from elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from training.evaluation.rates import bootstrap_interval, median, percentile, rate
from training.evaluation.scope.metrics import (
    expected_calibration_error,
    harmonic_mean,
    recall_at,
    reliability_bins,
    threshold_curve,
)


def test_the_wilson_interval_is_that_of_the_textbook() -> None:
    share = rate([True] * 8 + [False] * 2)  # 0.4902, 0.9433 in Newcombe, Statistics in Medicine 17, 1998
    assert (share.value, round(share.low, 4), round(share.high, 4)) == (0.8, 0.4902, 0.9433)


def test_the_wilson_interval_of_no_event_stays_above_zero_width() -> None:
    none = rate([False] * 12_000)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(0.00032, abs=1e-5)
    assert rate([True] * 5).high == 1.0


def test_a_rate_of_nothing_is_nan_and_no_error() -> None:
    assert math.isnan(rate([]).value)
    assert math.isnan(rate([]).low)


def test_the_harmonic_mean_is_erens() -> None:
    assert harmonic_mean(0.969, 0.514) == pytest.approx(0.672, abs=5e-4)  # SERAC in table 3
    assert harmonic_mean(0.0, 0.0) == 0.0


def test_the_bootstrap_interval_covers_the_mean_and_repeats_with_its_seed() -> None:
    values = list(np.random.default_rng(0).normal(5.0, 1.0, size=400))
    low, high = bootstrap_interval(values, lambda drawn: float(np.mean(drawn)), seed=1)
    assert low < 5.0 < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.2)
    assert (low, high) == bootstrap_interval(values, lambda drawn: float(np.mean(drawn)), seed=1)


def test_the_bootstrap_of_nothing_or_of_nan_is_nan() -> None:
    assert all(map(math.isnan, bootstrap_interval([], len)))
    assert all(map(math.isnan, bootstrap_interval([1], lambda drawn: math.nan, rounds=5)))


def test_recall_counts_a_missing_rank_as_a_miss() -> None:
    assert recall_at([1, 3, None, 2], 2).value == 0.5


def test_a_calibrated_classifier_has_no_error_and_a_sure_wrong_one_the_largest() -> None:
    assert expected_calibration_error([0.25] * 4, [True, False, False, False]) == 0.0
    assert expected_calibration_error([1.0] * 3, [False] * 3) == 1.0
    assert math.isnan(expected_calibration_error([], []))


def test_reliability_bins_hold_both_ends_and_leave_out_empty_ones() -> None:
    bins = reliability_bins([0.0, 0.01, 1.0], [False, True, True], bins=10)
    assert [(part.count, part.share_right) for part in bins] == [(2, 0.5), (1, 1.0)]


def test_the_curve_is_the_roc_curve_where_every_best_candidate_is_the_right_one() -> None:
    rng = np.random.default_rng(4)
    positives = rng.beta(4, 2, size=300).round(2)
    negatives = rng.beta(2, 4, size=400).round(2)
    points = threshold_curve(
        [(float(value), True) for value in positives], [float(value) for value in negatives]
    )
    false_fire, hit, _ = roc_curve([1] * 300 + [0] * 400, [*positives, *negatives], drop_intermediate=False)
    assert [point.false_fire for point in points] == pytest.approx(list(false_fire))
    assert [point.hit for point in points] == pytest.approx(list(hit))


def test_a_positive_that_fires_with_another_edit_is_no_hit_and_costs_precision() -> None:
    points = threshold_curve([(0.9, True), (0.8, False)], [0.1])
    assert [(point.hit, point.false_fire, point.precision) for point in points] == [
        (0.0, 0.0, 1.0),
        (0.5, 0.0, 1.0),
        (0.5, 0.0, 0.5),
        (0.5, 1.0, 1 / 3),
    ]


def test_percentiles_are_by_nearest_rank() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert percentile(list(range(1, 101)), 95) == 95
    assert math.isnan(median([]))
