"""Turns logits and similarities into calibrated probabilities, and chooses the one threshold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from serac_gateway.errors import ConfigError
from training.observations import Observation, Reading

BINS = 10
MIN_LOGIT_WEIGHT = 1e-3


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """What `ScopeCalibration` holds of the logistic function: one weight a witness, and the intercept."""

    logit_weight: float
    similarity_weight: float
    absent_weight: float
    intercept: float

    def probabilities(self, readings: Sequence[Reading]) -> NDArray[np.float64]:
        """*Shape:* (N,), 0..1, in order."""
        weights_3 = np.array([self.logit_weight, self.similarity_weight, self.absent_weight])
        raw_N = features(readings) @ weights_3 + self.intercept
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(raw_N, -60, 60))))


def features(readings: Sequence[Reading]) -> NDArray[np.float64]:
    """Logit, similarity, share of absent names. *Shape:* (N, 3)."""
    return np.array([(r.logit, r.similarity, r.absent) for r in readings], dtype=np.float64).reshape(-1, 3)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one probe would do at any threshold."""

    benchmark: str
    set_name: str
    in_scope: bool
    probability: float
    """Of the most probable candidate; 0 without a candidate."""
    right: bool
    """Whether that candidate is the probe's own edit."""


class OperatingPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The rates at one threshold. Every benchmark weighs the same on its side, however many kinds it has."""

    threshold: float
    hit: float
    no_fire: float
    by_set: dict[str, float]

    @property
    def harmonic(self) -> float:
        """Harmonic mean of hit and no_fire."""
        return 2 * self.hit * self.no_fire / (self.hit + self.no_fire) if self.hit + self.no_fire else 0.0


class ReliabilityBin(msgspec.Struct, frozen=True, kw_only=True):
    """Candidates whose probability falls between `low` and `high`."""

    low: float
    high: float
    count: int
    mean_probability: float
    share_right: float


def fitted_stack(observations: Sequence[Observation]) -> Stack:
    """Logistic regression on every reading; each benchmark weighs the same, positives and negatives too.

    Raises:
        ConfigError: All readings are right, or none is.
    """
    readings = [reading for one in observations for reading in one.readings]
    sets = [one.benchmark for one in observations for _ in one.readings]
    labels = [reading.right for reading in readings]
    labels_N = np.array(labels, dtype=bool)
    if labels_N.all() or not labels_N.any():
        side = "positive" if not labels_N.any() else "negative"
        raise ConfigError(
            f"the calibration data has no {side} readings; give edits with queries of both kinds"
        )
    weights_N = np.zeros(len(labels_N))
    for label in (True, False):
        chosen_N = labels_N == label
        names = sorted({s for s, c in zip(sets, chosen_N, strict=True) if c})
        for name in names:
            rows_N = chosen_N & np.array([s == name for s in sets])
            weights_N[rows_N] = 1.0 / (len(names) * rows_N.sum())
    model = LogisticRegression(C=1e4, max_iter=2_000).fit(
        features(readings), labels_N, sample_weight=weights_N * len(labels_N) / 2
    )
    logit_weight, similarity_weight, absent_weight = (float(w) for w in model.coef_[0])
    return Stack(
        logit_weight=max(MIN_LOGIT_WEIGHT, logit_weight),
        similarity_weight=similarity_weight,
        absent_weight=absent_weight,
        intercept=float(model.intercept_[0]),
    )


def outcomes(observations: Sequence[Observation], stack: Stack) -> list[Outcome]:
    """The most probable candidate of each probe."""
    found = []
    for one in observations:
        best, right = 0.0, False
        if one.readings:
            probabilities_K = stack.probabilities(one.readings)
            place = int(np.argmax(probabilities_K))
            best, right = float(probabilities_K[place]), one.readings[place].right
        found.append(
            Outcome(
                benchmark=one.benchmark,
                set_name=one.set_name,
                in_scope=one.in_scope,
                probability=best,
                right=right,
            )
        )
    return found


def at_threshold(found: Sequence[Outcome], threshold: float) -> OperatingPoint:
    """The rates if every probability >= threshold fires."""
    by_set: dict[tuple[str, bool], list[bool]] = defaultdict(list)
    by_benchmark: dict[tuple[str, bool], list[bool]] = defaultdict(list)
    for one in found:
        fires = one.probability >= threshold
        is_good = fires and one.right if one.in_scope else not fires
        by_set[(one.set_name, one.in_scope)].append(is_good)
        by_benchmark[(one.benchmark, one.in_scope)].append(is_good)
    hits = [float(np.mean(good)) for (_, in_scope), good in by_benchmark.items() if in_scope]
    quiet = [float(np.mean(good)) for (_, in_scope), good in by_benchmark.items() if not in_scope]
    return OperatingPoint(
        threshold=threshold,
        hit=float(np.mean(hits)) if hits else 0.0,
        no_fire=float(np.mean(quiet)) if quiet else 0.0,
        by_set={
            f"{name} {'hit' if in_scope else 'no-fire'}": round(float(np.mean(good)), 4)
            for (name, in_scope), good in sorted(by_set.items())
        },
    )


def chosen_threshold(found: Sequence[Outcome], *, max_false_fire_rate: float | None = None) -> OperatingPoint:
    """The threshold of the best harmonic mean; or the lowest whose mean false-fire rate is within the limit.

    Raises:
        ConfigError: No threshold below 1 keeps the limit.
    """
    points = [at_threshold(found, float(cut)) for cut in np.round(np.arange(0.02, 0.998, 0.004), 3)]
    if max_false_fire_rate is None:
        return max(points, key=lambda point: point.harmonic)
    for point in points:
        if 1 - point.no_fire <= max_false_fire_rate:
            return point
    least = 1 - points[-1].no_fire
    raise ConfigError(
        f"no threshold keeps false fires within {max_false_fire_rate!r}; the least is {least:.4f}:"
        " allow more, or train on the negatives that serac-train explain-errors shows"
    )


def reliability(
    observations: Sequence[Observation], stack: Stack, *, bins: int = BINS
) -> list[ReliabilityBin]:
    """How often candidates of a probability are right, by equal-width bins; empty bins are left out."""
    readings = [r for one in observations for r in one.readings]
    probabilities_N = stack.probabilities(readings)
    right_N = np.array([r.right for r in readings])
    made = []
    for place in range(bins):
        low, high = place / bins, (place + 1) / bins
        inside_N = (probabilities_N >= low) & ((probabilities_N < high) | (place == bins - 1))
        if inside_N.any():
            made.append(
                ReliabilityBin(
                    low=low, high=high, count=int(inside_N.sum()),
                    mean_probability=float(probabilities_N[inside_N].mean()),
                    share_right=float(right_N[inside_N].mean()),
                )
            )  # fmt: skip
    return made


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Mean |share right - mean probability| over all candidates (Guo et al. 2017, arXiv 1706.04599)."""
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.share_right - one.mean_probability) for one in bins) / max(1, total)


def similarity_floor(
    observations: Sequence[Observation], *, quantile: float = 0.001, margin: float = 0.05
) -> float:
    """Under it almost no probe has its own edit: a low quantile of the right ones, less a margin."""
    right = [r.similarity for one in observations for r in one.readings if r.right]
    if not right:
        return -1.0
    return round(max(-1.0, float(np.quantile(right, quantile)) - margin), 3)
