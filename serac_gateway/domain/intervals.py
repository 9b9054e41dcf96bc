"""Confidence intervals for what is compared between two arms.

Each holds for one look at data whose number was fixed before. Whoever looks again and again, and stops when
the interval suits, is wrong more often than its level says (Armitage, McPherson and Rowe 1969).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

Z_95 = 1.959964
"""Two-sided 95 % of the normal distribution."""
Z_999 = 3.290527
"""Two-sided 99.9 %."""
_RESAMPLES = 2_000


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float


def wilson(successes: int, trials: int, *, z: float = Z_95) -> Interval | None:
    """The score interval of a proportion (Wilson 1927), within 0..1; None without trials."""
    if trials == 0:
        return None
    share = successes / trials
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    centre, scale = share + z * z / (2 * trials), 1 + z * z / trials
    return Interval(
        estimate=share,
        low=0.0 if successes == 0 else max(0.0, (centre - spread) / scale),
        high=1.0 if successes == trials else min(1.0, (centre + spread) / scale),
    )


def share_difference(first: tuple[int, int], second: tuple[int, int]) -> Interval | None:
    """Of the proportions (successes, trials) of two samples, first minus second, within -1..1.

    Newcombe's hybrid score interval (1998, method 10). None if a sample is empty.
    """
    a, b = wilson(*first), wilson(*second)
    if a is None or b is None:
        return None
    difference = a.estimate - b.estimate
    return Interval(
        estimate=difference,
        low=difference - math.hypot(a.estimate - a.low, b.high - b.estimate),
        high=difference + math.hypot(a.high - a.estimate, b.estimate - b.low),
    )


def median(values: Sequence[float]) -> Interval | None:
    """The median with the percentile bootstrap's 95 % interval (Efron 1979); None without values.

    The resamples are drawn from a fixed seed, so equal values give equal intervals.
    """
    if not values:
        return None
    medians_R = _resampled_medians(values, seed=0)
    low, high = np.quantile(medians_R, (0.025, 0.975))
    return Interval(estimate=float(np.median(values)), low=float(low), high=float(high))


def median_difference(first: Sequence[float], second: Sequence[float]) -> Interval | None:
    """Of the medians of two samples, first minus second, likewise; None if a sample is empty."""
    if not first or not second:
        return None
    differences_R = _resampled_medians(first, seed=0) - _resampled_medians(second, seed=1)
    low, high = np.quantile(differences_R, (0.025, 0.975))
    return Interval(estimate=float(np.median(first) - np.median(second)), low=float(low), high=float(high))


def _resampled_medians(values: Sequence[float], *, seed: int) -> np.ndarray:
    """*Shape:* (R,)."""
    values_N = np.asarray(values, dtype=np.float64)
    places_RN = np.random.default_rng(seed).integers(0, len(values_N), size=(_RESAMPLES, len(values_N)))
    return np.asarray(np.median(values_N[places_RN], axis=1))
