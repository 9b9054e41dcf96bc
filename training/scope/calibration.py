"""Turns logits and similarities into calibrated probabilities, and chooses the one threshold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.cross_encoder import CERTAIN_LOGIT, Stack
from training.scope.observations import Observation, Reading

BINS = 10
MIN_LOGIT_WEIGHT = 1e-3


def probabilities(stack: Stack, readings: Sequence[Reading]) -> NDArray[np.float64]:
    """`Stack.probability` of each. *Shape:* (N,), 0..1, in order."""
    return np.array([stack.probability(reading.evidence) for reading in readings], dtype=np.float64)


def features(readings: Sequence[Reading]) -> NDArray[np.float64]:
    """The logit. *Shape:* (N, 1)."""
    return np.array([[reading.evidence.logit] for reading in readings], dtype=np.float64).reshape(-1, 1)


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


def depended_on(observations: Sequence[Observation]) -> list[Observation]:
    """The observations as they would be if the second question were the first: does the answer depend on it.

    Probes and readings of which that is unclear are left out; no weights with one output have any.
    """
    turned = []
    for observation in observations:
        if any(reading.depends is None for reading in observation.readings):
            continue
        readings = tuple(
            msgspec.structs.replace(r, evidence=r.depends_evidence, right=bool(r.depends))
            for r in observation.readings
            if r.depends_logit is not None
        )
        if readings:
            in_scope = observation.in_scope or any(reading.right for reading in readings)
            turned.append(msgspec.structs.replace(observation, readings=readings, in_scope=in_scope))
    return turned


def fitted_stack(observations: Sequence[Observation]) -> Stack:
    """Logistic regression on every reading; each benchmark weighs the same, positives and negatives too.

    Readings whose logit is set, such as an edit's own prompt, are left out.

    Raises:
        ConfigError: All readings are right, or none is.
    """
    rows = [
        (observation.benchmark, reading)
        for observation in observations
        for reading in observation.readings
        if abs(reading.evidence.logit) < CERTAIN_LOGIT
    ]
    readings = [reading for _, reading in rows]
    labels_N = np.array([reading.right for reading in readings], dtype=bool)
    if labels_N.all() or not labels_N.any():
        side = "positive" if not labels_N.any() else "negative"
        raise ConfigError(
            f"the calibration data has no {side} readings; give edits with queries of both kinds"
        )
    sets_N = np.array([name for name, _ in rows])
    weights_N = np.zeros(len(labels_N))
    for label in (True, False):
        chosen_N = labels_N == label
        names = sorted(set(sets_N[chosen_N]))
        for name in names:
            rows_N = chosen_N & (sets_N == name)
            weights_N[rows_N] = 1.0 / (len(names) * rows_N.sum())
    model = LogisticRegression(C=1e4, max_iter=2_000).fit(
        features(readings), labels_N, sample_weight=weights_N * len(labels_N) / 2
    )
    return Stack(
        logit_weight=max(MIN_LOGIT_WEIGHT, round(float(model.coef_[0][0]), 4)),
        intercept=round(float(model.intercept_[0]), 4),
    )


def outcomes(observations: Sequence[Observation], stack: Stack) -> list[Outcome]:
    """The most probable candidate of each probe."""
    made = []
    for observation in observations:
        best, right = 0.0, False
        if observation.readings:
            probabilities_K = probabilities(stack, observation.readings)
            place = int(np.argmax(probabilities_K))
            best, right = float(probabilities_K[place]), observation.readings[place].right
        made.append(
            Outcome(
                benchmark=observation.benchmark,
                set_name=observation.set_name,
                in_scope=observation.in_scope,
                probability=best,
                right=right,
            )
        )
    return made


def at_threshold(outcomes: Sequence[Outcome], threshold: float) -> OperatingPoint:
    """The rates if every probability >= threshold fires."""
    by_set: dict[tuple[str, bool], list[bool]] = defaultdict(list)
    by_benchmark: dict[tuple[str, bool], list[bool]] = defaultdict(list)
    for outcome in outcomes:
        fires = outcome.probability >= threshold
        is_good = fires and outcome.right if outcome.in_scope else not fires
        by_set[(outcome.set_name, outcome.in_scope)].append(is_good)
        by_benchmark[(outcome.benchmark, outcome.in_scope)].append(is_good)
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


def chosen_threshold(
    outcomes: Sequence[Outcome], *, max_false_fire_rate: float | None = None
) -> OperatingPoint:
    """The threshold of the best harmonic mean; or the lowest whose mean false-fire rate is within the limit.

    Raises:
        ConfigError: No threshold below 1 keeps the limit.
    """
    points = [at_threshold(outcomes, float(cut)) for cut in np.round(np.arange(0.02, 0.998, 0.004), 3)]
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
    readings = [r for observation in observations for r in observation.readings]
    probabilities_N = probabilities(stack, readings)
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
    total = sum(part.count for part in bins)
    return sum(part.count * abs(part.share_right - part.mean_probability) for part in bins) / max(1, total)


MAX_UNREAD = 0.05
_UNRELATED = "unrelated"
"""The kind of probe of the validation set of that name."""


def check_floor(observations: Sequence[Observation], floor: float) -> None:
    """Refuse a floor under which the encoder puts many right edits: there would be nothing to choose from.

    Raises:
        ConfigError: More than `MAX_UNREAD` of the probes in scope have no candidate at all.
    """
    unread = [not observation.readings for observation in observations if observation.in_scope]
    if sum(unread) > MAX_UNREAD * len(unread):
        raise ConfigError(
            f"{sum(unread)} of {len(unread)} probes in scope have no candidate above the floor {floor!r};"
            " lower validation.floor: cosines of another encoder lie elsewhere"
        )


def similarity_floor(
    observations: Sequence[Observation], *, quantile: float = 0.001, margin: float = 0.02
) -> float:
    """Under it almost no probe has its own edit: a low quantile of the right ones, less a margin."""
    right = [r.evidence.similarity for observation in observations for r in observation.readings if r.right]
    if not right:
        return -1.0
    return round(max(-1.0, float(np.quantile(right, quantile)) - margin), 3)


def unlikely_similarity(observations: Sequence[Observation], *, quantile: float = 0.99) -> float:
    """A high quantile of how similar the nearest edit is to unrelated questions; -1 without any of them."""
    nearest = [
        max(r.evidence.similarity for r in observation.readings)
        for observation in observations
        if observation.kind == _UNRELATED and observation.readings
    ]
    return round(float(np.quantile(nearest, quantile)), 3) if nearest else -1.0


def similarity_margin(
    observations: Sequence[Observation], *, quantile: float = 0.995, slack: float = 0.01
) -> float:
    """Hardly any probe has its own edit this much further away than the nearest: a high quantile and slack.

    2, which leaves out nothing, without a probe in scope.
    """
    behind = [
        max(r.evidence.similarity for r in observation.readings)
        - max(r.evidence.similarity for r in observation.readings if r.right)
        for observation in observations
        if any(r.right for r in observation.readings)
    ]
    return round(min(2.0, float(np.quantile(behind, quantile)) + slack), 3) if behind else 2.0
