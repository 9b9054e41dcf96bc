"""Chooses the threshold of suppressions, on cases decided as a gateway decides them.

It cannot be read off the pairs that the other threshold is chosen on: for suppressions the gateway reads the
passages of a request too, and each more that it reads makes a leak rarer and a refusal likelier.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from serac_gateway.config.model import RoutingConfig
from serac_gateway.domain.queries import Query
from serac_gateway.edit_index.opening import index_maker
from serac_gateway.models.classifiers.base import Candidate, Classification, PairModel, ScopeClassifier
from serac_gateway.models.classifiers.cross_encoder import CrossEncoderClassifier, ScopeCalibration
from serac_gateway.models.encoders.base import Encoder
from training.benchmarks.decision_cases import DecisionCase
from training.evaluation.gateway_models import GatewayModels
from training.evaluation.scope.case_decisions import decide_cases
from training.progress import OnProgress

MAX_SHARE = 0.02
"""Of the harmless questions that may be refused, and of the suppressed ones that may leak: the goal."""
LEAK_COST = 2.0
"""Of a leak, in refusals of harmless questions."""
_NEVER = 1.0
"""A threshold that nothing but an edit's own prompt reaches."""


class TradePoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a threshold costs."""

    threshold: float
    leaks: float
    """Share of the requests in scope of a suppression that pass."""
    blocked: float
    """Share of the harmless questions that are refused."""


def with_suppression_threshold(
    calibration: ScopeCalibration, folder: Path, cases: Sequence[DecisionCase], *,
    encoder: Encoder, model: PairModel, on_progress: OnProgress,
) -> ScopeCalibration:  # fmt: skip
    """`calibration`, which lies beside the weights in `folder`, with a threshold for suppressions.

    Raises:
        ModelUnavailableError: Encoder or `model`, those weights opened, failed.
    """
    classifier = CrossEncoderClassifier(folder, encoder_fingerprint=encoder.fingerprint, model=model)
    models = GatewayModels(encoder=encoder, classifier=classifier, make_index=index_maker(encoder.width))
    points = trade_curve(models, cases, on_progress=on_progress)
    point = chosen_point(points)
    reported = {
        "cases": len(cases),
        "rule": f"middle of both shares <= {MAX_SHARE}; if none is, least {LEAK_COST} * leaks + blocked",
        "leaks": point.leaks,
        "blocked": point.blocked,
        "curve": [[each.threshold, each.leaks, each.blocked] for each in points[4::5]],
    }
    return msgspec.structs.replace(
        calibration,
        suppression_threshold=point.threshold,
        provenance={**calibration.provenance, "suppressions": reported},
    )


def trade_curve(
    models: GatewayModels, cases: Sequence[DecisionCase], *, on_progress: OnProgress
) -> list[TradePoint]:
    """Leaks and refusals at thresholds from .01 to .99, lowest first. Each case has one suppression.

    Raises:
        ModelUnavailableError: Encoder or classifier failed.
    """
    recording = _Highest(models.classifier)
    watched = msgspec.structs.replace(models, classifier=recording)
    highest: dict[bool, list[float]] = {True: [], False: []}
    for done, case in enumerate(cases, 1):
        recording.probability = 0.0
        decide_cases(watched, [case], routing=RoutingConfig(suppression_threshold=_NEVER))
        highest[case.in_scope].append(recording.probability)
        on_progress("suppressions read", done, len(cases))
    suppressed, harmless = (np.array(highest[in_scope]) for in_scope in (True, False))
    return [
        TradePoint(
            threshold=float(cut),
            leaks=round(float(np.mean(suppressed < cut)), 4),
            blocked=round(float(np.mean(harmless >= cut)), 4),
        )
        for cut in np.round(np.arange(0.01, 0.995, 0.01), 2)
    ]


def chosen_point(points: Sequence[TradePoint], *, max_share: float = MAX_SHARE) -> TradePoint:
    """The middle of the thresholds that keep leaks and refusals within `max_share`, far from either error.

    Where none does, the lowest of those that cost least, each leak counted as `LEAK_COST` refusals.
    """
    both = [point for point in points if max(point.leaks, point.blocked) <= max_share]
    if both:
        return both[len(both) // 2]
    return min(points, key=lambda point: (LEAK_COST * point.leaks + point.blocked, point.threshold))


class _Highest(ScopeClassifier):
    """Keeps the highest probability of all that a decision reads: up to there it would refuse."""

    def __init__(self, classifier: ScopeClassifier) -> None:
        self._classifier = classifier
        self.probability = 0.0

    @property
    def scope_threshold(self) -> float:
        return self._classifier.scope_threshold

    @property
    def similarity_floor(self) -> float:
        return self._classifier.similarity_floor

    @property
    def similarity_margin(self) -> float:
        return self._classifier.similarity_margin

    @property
    def unlikely_similarity(self) -> float:
        return self._classifier.unlikely_similarity

    @property
    def depends_threshold(self) -> float | None:
        return self._classifier.depends_threshold

    @property
    def fingerprint(self) -> str:
        return self._classifier.fingerprint

    def classify(self, query: Query, candidates: Sequence[Candidate]) -> list[Classification]:
        classified = self._classifier.classify(query, candidates)
        self.probability = max([self.probability, *(each.scope_probability for each in classified)])
        return classified
