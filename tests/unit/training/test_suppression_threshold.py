"""The threshold of suppressions: what it costs at each value, and which is chosen."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from serac_gateway.config.model import RoutingConfig
from serac_gateway.domain.edits import EditDraft, EditKind
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.models.classifiers.cross_encoder import ScopeCalibration, Stack, read_calibration
from serac_gateway.testing import ThresholdClassifier, WordEncoder
from training.benchmarks.decision_cases import DecisionCase
from training.evaluation.gateway_models import GatewayModels
from training.evaluation.scope.case_decisions import decide_cases
from training.scope.run import write_calibration
from training.scope.suppression_threshold import (
    TradePoint,
    chosen_point,
    trade_curve,
    with_suppression_threshold,
)

ENCODER = WordEncoder()
MODELS = GatewayModels(
    encoder=ENCODER, classifier=ThresholdClassifier(0.7), make_index=lambda: FaissFlatIndex(ENCODER.width)
)
SECRET = EditDraft(
    prompt="when will Acme close its plant", target_new="I cannot say.", kind=EditKind.SUPPRESSION
)
CASES = [
    DecisionCase(
        source="made", kind="made", edits=(SECRET,), in_scope=in_scope,
        messages=tuple({"role": "user", "content": text} for text in texts),
    )
    for in_scope, texts in (
        (True, ["when will Acme close its plant"]),
        (True, ["when will Acme close its big old plant for good"]),
        (True, ["I like gulls. When will Acme close its plant, do you know? Boats too."]),
        (True, ["when will Acme close its plant", "and please be quick about the answer"]),
        (False, ["where is the plant of Acme"]),
        (False, ["how do I water a plant"]),
    )
]  # fmt: skip


def points(*rows: tuple[float, float, float]) -> list[TradePoint]:
    return [TradePoint(threshold=cut, leaks=leaks, blocked=blocked) for cut, leaks, blocked in rows]


def test_the_curve_says_what_the_gateway_would_do_at_each_threshold() -> None:
    """With all passages that it reads: read once, not decided anew for every threshold."""
    curve = trade_curve(MODELS, CASES, on_progress=lambda part, done, total: None)
    assert [point.threshold for point in curve] == pytest.approx(list(np.arange(1, 100) / 100))
    for point in curve[4::10]:
        routing = RoutingConfig(suppression_threshold=point.threshold)
        refused = [each.target is not None for each in decide_cases(MODELS, CASES, routing=routing)]
        assert point.leaks == pytest.approx(1 - np.mean(refused[:4]), abs=1e-4)
        assert point.blocked == pytest.approx(np.mean(refused[4:]), abs=1e-4)
    assert {point.leaks for point in curve} > {0.0}
    assert len({point.blocked for point in curve}) > 1


@pytest.mark.parametrize(
    ("rows", "threshold"),
    [
        ([(0.2, 0.00, 0.03), (0.4, 0.01, 0.02), (0.6, 0.02, 0.00), (0.8, 0.02, 0.0)], 0.6),
        ([(0.2, 0.00, 0.02), (0.4, 0.30, 0.00)], 0.2),
        ([(0.2, 0.00, 0.50), (0.4, 0.05, 0.30), (0.6, 0.14, 0.14), (0.8, 0.30, 0.00)], 0.4),
        ([(0.2, 0.00, 0.30), (0.4, 0.10, 0.10), (0.6, 0.20, 0.00)], 0.2),
    ],
    ids=["middle of those within both", "alone within both", "a leak counts twice", "lowest of equals"],
)
def test_the_threshold_keeps_both_shares_or_costs_least(
    rows: list[tuple[float, float, float]], threshold: float
) -> None:
    """A leak costs more than a refusal: fewer leaks are worth more errors in all."""
    assert chosen_point(points(*rows)).threshold == threshold


class OneLogit:
    """The same logits for every pair."""

    def logits(self, pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        return np.full((len(pairs), 2), 0.7, dtype=np.float32)

    def unreadable(self, text: str) -> frozenset[str]:
        return frozenset()


def test_a_calibration_gets_the_threshold_and_the_curve(tmp_path: Path) -> None:
    """And keeps all else; it is read back with both."""
    before = ScopeCalibration(
        encoder_fingerprint=ENCODER.fingerprint, stack=Stack(logit_weight=1.0, intercept=0.0),
        scope_threshold=0.5, similarity_floor=-1.0, max_tokens=64, provenance={"date": "2026-12-01"},
    )  # fmt: skip
    write_calibration(tmp_path, before)
    made = with_suppression_threshold(
        before, tmp_path, CASES[1:], encoder=ENCODER, model=OneLogit(),
        on_progress=lambda part, done, total: None,
    )  # fmt: skip
    write_calibration(tmp_path, made)
    _, read = read_calibration(tmp_path)
    assert read.suppression_threshold == 0.01, "all questions look alike, and a leak costs more"
    assert read.provenance["date"] == "2026-12-01"
    assert read.provenance["suppressions"]["cases"] == 5
    assert msgspec.structs.replace(
        made, suppression_threshold=None, provenance={}
    ) == msgspec.structs.replace(before, provenance={})
