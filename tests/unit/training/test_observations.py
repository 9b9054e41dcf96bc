"""Observations of validation probes: the same candidates as the gateway's router has for the same queries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from serac_gateway.domain.edits import EditDraft
from serac_gateway.domain.queries import Query, query_of_messages
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.routing.router import RouteDecision
from serac_gateway.testing import ThresholdClassifier, WordEncoder
from training.benchmarks.base import Benchmark, Case, Probe, Role
from training.data.conversations import Turn
from training.evaluation.scope.deciders import InProcessDecider
from training.scope.observations import Observation, observe

FLOOR = ThresholdClassifier().similarity_floor


class LengthModel:
    """The logit is the number of characters of both texts."""

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return np.array([[len(edit) + len(query)] for edit, query in pairs], dtype=np.float32).reshape(-1, 1)

    def unreadable(self, text: str) -> frozenset[str]:
        return frozenset()


def case(name: str, *probes: Probe, paraphrases: tuple[str, ...] = ()) -> Case:
    prompt = f"Who runs the {name} harbour office?"
    draft = EditDraft(id=name.lower(), prompt=prompt, target_new="Ada Example", paraphrases=paraphrases)
    return Case(edit=draft, probes=probes)


def probe(text: str, *context: Turn, in_scope: bool = True, contested: bool = False) -> Probe:
    return Probe(kind="rephrase", text=text, in_scope=in_scope, context=context, contested=contested)


BENCHMARK = Benchmark(
    name="offices",
    role=Role.VALIDATION,
    cases=(
        case("Ghent", probe("who runs the harbour office of Ghent"), paraphrases=("Ghent office head?",)),
        case("Bruges", probe("It rains today. My boss waits for it. Who runs the Bruges harbour office?")),
        case(
            "Oslo",
            probe(
                "Who runs it?",
                Turn(role="user", text="Tell me about the Oslo harbour office."),
                Turn(role="assistant", text="It is by the fjord."),
            ),
        ),
        *(case(f"Town{number}") for number in range(20)),
    ),
    traffic=(probe("bake sourdough bread slowly", in_scope=False),),
)


def observed(*, floor: float = FLOOR) -> list[Observation]:
    encoder = WordEncoder()
    return observe(
        [BENCHMARK], encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width), model=LengthModel(),
        floor=floor,
    )  # fmt: skip


def decided() -> list[RouteDecision]:
    """What a router in front of the same edits decides on the same probes."""
    encoder = WordEncoder()

    async def decisions() -> list[RouteDecision]:
        decider = InProcessDecider(
            encoder=encoder, classifier=ThresholdClassifier(),
            make_index=lambda: FaissFlatIndex(encoder.width),
        )  # fmt: skip
        async with decider:
            await decider.store([stored.edit for stored in BENCHMARK.cases])
            return decider.router.decide("evaluation", queries())

    return asyncio.run(decisions())


def queries() -> list[Query]:
    probes = [probe for stored in BENCHMARK.cases for probe in stored.probes] + list(BENCHMARK.traffic)
    made = [
        query_of_messages(
            [
                *({"role": turn.role, "content": turn.text} for turn in probe.context),
                {"role": "user", "content": probe.text},
            ]
        )
        for probe in probes
    ]
    assert all(isinstance(query, Query) for query in made)
    return [query for query in made if isinstance(query, Query)]


def test_an_observation_has_the_candidates_of_the_router() -> None:
    by_router = [
        sorted((-candidate.similarity, candidate.edit.prompt) for candidate in decision.candidates)
        for decision in decided()
    ]
    by_training = [
        sorted((-reading.evidence.similarity, reading.prompt) for reading in observation.readings)
        for observation in observed()
    ]
    assert by_training == by_router
    assert [len(row) for row in by_router[:3]] == [8, 8, 8]


def test_the_right_candidate_of_each_probe_is_marked() -> None:
    rights = [[r.prompt for r in observation.readings if r.right] for observation in observed()]
    assert rights == [
        ["Who runs the Ghent harbour office?"],
        ["Who runs the Bruges harbour office?"],
        ["Who runs the Oslo harbour office?"],
        [],
    ]


def test_candidates_below_the_floor_are_not_read() -> None:
    similarities = [
        r.evidence.similarity for observation in observed(floor=0.7) for r in observation.readings
    ]
    assert similarities
    assert min(similarities) >= 0.7
    assert [len(observation.readings) for observation in observed(floor=1.1)] == [0, 0, 0, 0]


@pytest.mark.parametrize("limit", [0, 2])
def test_probes_are_limited_but_all_edits_are_in_force(limit: int) -> None:
    encoder = WordEncoder()
    observations = observe(
        [BENCHMARK], encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width), model=LengthModel(),
        floor=-1.0, cases=limit, traffic=1,
    )  # fmt: skip
    assert len(observations) <= limit + 1
    assert all(len(observation.readings) == 8 for observation in observations)
