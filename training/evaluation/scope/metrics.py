"""Metrics as pure functions, each with its source. Rates are in 0..1."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

T = TypeVar("T")

_Z95 = 1.959964


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """A share with its 95 % interval."""

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share; NaN for nothing out of nothing."""
        return self.count / self.total if self.total else math.nan


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """One bar of a reliability diagram."""

    mean_probability: float
    share_right: float
    count: int


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """The rates at one threshold."""

    threshold: float
    hit: float
    """Share of positives where the right edit fires."""
    false_fire: float
    """Share of negatives where any edit fires."""
    precision: float
    """Share of all fires that are right; 1 when nothing fires."""


def rate(outcomes: Sequence[bool]) -> Rate:
    """The share of True, with the Wilson interval (E. B. Wilson, JASA 22, 1927)."""
    total = len(outcomes)
    count = sum(outcomes)
    if total == 0:
        return Rate(count=0, total=0, low=math.nan, high=math.nan)
    share = count / total
    denominator = 1 + _Z95**2 / total
    centre = (share + _Z95**2 / (2 * total)) / denominator
    half = _Z95 * math.sqrt(share * (1 - share) / total + _Z95**2 / (4 * total**2)) / denominator
    low = 0.0 if count == 0 else centre - half
    high = 1.0 if count == total else centre + half
    return Rate(count=count, total=total, low=low, high=high)


def harmonic_mean(hit: float, no_fire: float) -> float:
    """Edit quality, the harmonic mean of edit success and behaviour preservation (EREN, arXiv 2403.17431)."""
    return 2 * hit * no_fire / (hit + no_fire) if hit + no_fire > 0 else 0.0


def bootstrap_interval(
    cases: Sequence[T], statistic: Callable[[Sequence[T]], float], *, seed: int = 0, rounds: int = 1_000
) -> tuple[float, float]:
    """The 95 % percentile interval of `statistic` over cases drawn anew (Efron, Ann. Stat. 7, 1979).

    Cases are drawn, not probes: probes of one case are not independent. Rounds without a value (NaN) are left
    out; no cases give NaN.
    """
    rng = random.Random(seed)
    values = sorted(
        value
        for _ in range(rounds if cases else 0)
        if not math.isnan(value := statistic(rng.choices(cases, k=len(cases))))
    )
    if not values:
        return math.nan, math.nan
    return values[int(0.025 * (len(values) - 1))], values[math.ceil(0.975 * (len(values) - 1))]


def recall_at(ranks: Sequence[int | None], k: int) -> Rate:
    """Share of probes whose right edit is among the `k` most similar (rank from 1; None: absent)."""
    return rate([rank is not None and rank <= k for rank in ranks])


def reliability_bins(probabilities: Sequence[float], right: Sequence[bool], *, bins: int = 15) -> list[Bin]:
    """Equal-width bins of the reliability diagram (Guo et al., ICML 2017); empty ones are left out."""
    members: list[list[int]] = [[] for _ in range(bins)]
    for position, probability in enumerate(probabilities):
        members[min(bins - 1, int(probability * bins))].append(position)
    return [
        Bin(
            mean_probability=sum(probabilities[one] for one in group) / len(group),
            share_right=sum(right[one] for one in group) / len(group),
            count=len(group),
        )
        for group in members
        if group
    ]


def expected_calibration_error(
    probabilities: Sequence[float], right: Sequence[bool], *, bins: int = 15
) -> float:
    """Mean gap of probability and share right, by bin (Naeini et al., AAAI 2015). NaN without data."""
    if not probabilities:
        return math.nan
    return sum(
        one.count * abs(one.mean_probability - one.share_right)
        for one in reliability_bins(probabilities, right, bins=bins)
    ) / len(probabilities)


def threshold_curve(positives: Sequence[tuple[float, bool]], negatives: Sequence[float]) -> list[CurvePoint]:
    """Hit, false fire and precision at every threshold that matters, highest threshold first.

    The points of a ROC curve (false_fire, hit) and of a precision-recall curve (hit, precision); Fawcett,
    Pattern Recognition Letters 27, 2006. Unlike there, a positive can fire wrongly: with another edit.

    Args:
        positives: For each positive probe the best candidate's probability, and whether it is the right edit.
        negatives: For each negative probe the best candidate's probability (0 without candidates).
    """
    events = sorted(
        [(probability, 1 if is_right else 2) for probability, is_right in positives]
        + [(probability, 0) for probability in negatives],
        reverse=True,
    )
    points = [CurvePoint(threshold=math.inf, hit=0.0, false_fire=0.0, precision=1.0)]
    hits = wrong = false_fires = 0
    for position, (probability, event) in enumerate(events):
        hits += event == 1
        wrong += event == 2
        false_fires += event == 0
        if position + 1 < len(events) and events[position + 1][0] == probability:
            continue
        points.append(
            CurvePoint(
                threshold=probability,
                hit=hits / max(1, len(positives)),
                false_fire=false_fires / max(1, len(negatives)),
                precision=hits / max(1, hits + wrong + false_fires),
            )
        )
    return points


def median(values: Sequence[float]) -> float:
    """The middle value; NaN without data."""
    return percentile(values, 50)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile; NaN without data."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(percent / 100 * len(ordered)) - 1))]
