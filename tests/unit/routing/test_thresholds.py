"""The threshold of suppressions beside that of all other edits."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from serac_gateway.config.model import RoutingConfig
from serac_gateway.domain.edits import Edit, EditKind
from serac_gateway.domain.passages import SpokenText
from serac_gateway.domain.queries import Query
from serac_gateway.models.classifiers.base import Candidate, Classification, ScopeClassifier
from serac_gateway.routing.router import Route
from serac_gateway.routing.thresholds import thresholds_in_force
from tests.unit.routing.test_router import edit, router

SUPPRESSED = EditKind.SUPPRESSION
QUESTION = "Who will buy Acme next spring?"


class ByTarget(ScopeClassifier):
    """Fixed probabilities by target, and a threshold of its own for suppressions."""

    scope_threshold = 0.6
    similarity_floor = -1.0
    fingerprint = "by target"

    def __init__(self, suppression_threshold: float | None = 0.3, **probability_of_target: float) -> None:
        self._suppression_threshold = suppression_threshold
        self._probability_of_target = probability_of_target

    @property
    def suppression_threshold(self) -> float | None:
        return self._suppression_threshold

    def classify(self, query: Query, candidates: Sequence[Candidate]) -> list[Classification]:
        given = self._probability_of_target
        return [
            Classification(scope_probability=given[candidate.edit.target_new]) for candidate in candidates
        ]


def fact() -> Edit:
    return edit("Who will buy Acme?", "fact", age_s=10)


def secret() -> Edit:
    return edit("Who will buy Acme soon?", "refusal", kind=SUPPRESSED, age_s=100)


@pytest.mark.parametrize(
    ("configured", "calibrated", "in_force"),
    [
        ({}, 0.3, (0.6, 0.3)),
        ({}, None, (0.6, 0.6)),
        ({"scope_threshold": 0.8}, 0.3, (0.8, 0.3)),
        ({"scope_threshold": 0.8}, None, (0.8, 0.8)),
        ({"suppression_threshold": 0.0}, 0.3, (0.6, 0.0)),
    ],
)
def test_what_is_configured_comes_before_what_was_calibrated(
    configured: dict[str, float], calibrated: float | None, in_force: tuple[float, float]
) -> None:
    """And suppressions fire like other edits where neither knows a threshold of theirs."""
    made = thresholds_in_force(RoutingConfig(**configured), ByTarget(calibrated))  # type: ignore[arg-type]
    assert (made.scope, made.suppression) == in_force
    assert (made.of(fact()), made.of(secret())) == in_force


@pytest.mark.parametrize(
    ("probabilities", "governs"),
    [
        ({"fact": 0.5, "refusal": 0.4}, "refusal"),
        ({"fact": 0.5, "refusal": 0.2}, None),
        ({"fact": 0.7, "refusal": 0.4}, "refusal"),
        ({"fact": 0.7, "refusal": 0.2}, "fact"),
        ({"fact": 0.4, "refusal": 0.5}, "refusal"),
    ],
)
async def test_each_edit_fires_from_its_own_threshold_on(
    probabilities: dict[str, float], governs: str | None
) -> None:
    """A suppression that fires refuses, whatever else does; the decision names the threshold of its edit."""
    deciding = await router(fact(), secret(), classifier=ByTarget(**probabilities))
    (decision,) = deciding.decide("default", [Query(text=QUESTION)])
    assert (decision.edit and decision.edit.target_new) == governs
    nearest = governs or "fact"
    assert decision.scope_probability == probabilities[nearest]
    assert decision.scope_threshold == {"fact": 0.6, "refusal": 0.3}[nearest]
    assert {each.edit.target_new: each.scope_threshold for each in decision.candidates} == {
        "fact": 0.6, "refusal": 0.3
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "refuses"),
    [("No comment.", False), ("Sorry: no comment", False), ("No", True), ("It was Ada.", True)],
)
async def test_a_question_that_was_refused_is_settled_with_or_without_the_full_stop(
    reply: str, refuses: bool
) -> None:
    kept = edit("Who will buy Acme soon?", "No comment.", kind=SUPPRESSED)
    deciding = await router(kept, classifier=ByTarget(**{"No comment.": 0.9}))
    decision = deciding.decide_suppression("default", [SpokenText(text=QUESTION, reply=reply)])
    assert (decision is not None) is refuses


@pytest.mark.parametrize("refusal", ["…", "..."])
async def test_a_refusal_of_marks_alone_settles_nothing_but_itself(refusal: str) -> None:
    kept = edit("Who will buy Acme soon?", refusal, kind=SUPPRESSED)
    deciding = await router(kept, classifier=ByTarget(**{refusal: 0.9}))
    said = [SpokenText(text=QUESTION, reply="It was Ada.")]
    assert deciding.decide_suppression("default", said) is not None
    assert deciding.decide_suppression("default", [SpokenText(text=QUESTION, reply=refusal)]) is None


@pytest.mark.parametrize(("probability", "refuses"), [(0.4, True), (0.2, False)])
async def test_passages_of_a_request_are_refused_from_the_same_threshold_on(
    probability: float, refuses: bool
) -> None:
    deciding = await router(secret(), classifier=ByTarget(refusal=probability))
    decision = deciding.decide_suppression("default", [SpokenText(text=QUESTION, is_latest=True)])
    assert (decision is not None) is refuses
    if decision is not None:
        assert (decision.route, decision.scope_threshold) == (Route.COUNTERFACTUAL, 0.3)
