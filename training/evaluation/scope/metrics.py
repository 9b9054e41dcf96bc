"""Metrics of scope decisions as pure functions, each with its source. Rates are in 0..1."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from training.evaluation.rates import Rate, rate


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


def harmonic_mean(hit: float, no_fire: float) -> float:
    """Edit quality, the harmonic mean of edit success and behaviour preservation (EREN, arXiv 2403.17431)."""
    return 2 * hit * no_fire / (hit + no_fire) if hit + no_fire > 0 else 0.0


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
            mean_probability=sum(probabilities[position] for position in group) / len(group),
            share_right=sum(right[position] for position in group) / len(group),
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
        part.count * abs(part.mean_probability - part.share_right)
        for part in reliability_bins(probabilities, right, bins=bins)
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
