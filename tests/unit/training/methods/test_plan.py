"""Which edits are made together, and what is asked."""

from __future__ import annotations

from collections import Counter

import pytest

from serac_gateway.errors import ConfigError
from tests.unit.training.methods.conftest import place_case
from training.benchmarks.base import Benchmark
from training.evaluation.answers.methods.outcomes import Group
from training.evaluation.answers.methods.plan import planned_probes, rounds


def test_the_same_cases_are_asked_at_every_number_of_edits(benchmark_of_places: Benchmark) -> None:
    """So that a curve over edits compares like with like."""
    by_edits = {
        edits: {
            case.case.id
            for made in rounds(benchmark_of_places, edits=edits, ask=3, seed=1)[0]
            for case in made.cases
        }
        for edits in (1, 2, 3, 6)
    }
    assert len(set(map(frozenset, by_edits.values()))) == 1
    assert len(by_edits[1]) == 3


def test_rounds_have_as_many_edits_as_wanted(benchmark_of_places: Benchmark) -> None:
    """With fewer edits than cases there are several rounds; with more, other cases fill the round."""
    made, _ = rounds(benchmark_of_places, edits=2, ask=4, seed=0)
    assert [(len(r.edits), len(r.cases)) for r in made] == [(2, 2), (2, 2)]
    made, _ = rounds(benchmark_of_places, edits=5, ask=2, seed=0)
    assert [(len(r.edits), len(r.cases)) for r in made] == [(5, 2)]
    assert len({edit.id for edit in made[0].edits}) == 5


def test_more_edits_than_the_benchmark_has_are_refused(benchmark_of_places: Benchmark) -> None:
    """A run says of how many edits it is, so it makes no fewer."""
    count = len(benchmark_of_places.cases)
    with pytest.raises(
        ConfigError, match=rf"has {count} cases to edit, not {count + 1}; give --edits {count}"
    ):
        rounds(benchmark_of_places, edits=count + 1, ask=1, seed=0)


def test_a_case_is_asked_by_all_groups_of_probes() -> None:
    """Its own probes, the neighbour behind the edited fact, and the prompt disturbed."""
    probes = list(planned_probes(place_case(2, "Moss"), seed=0, per_kind=2))
    assert Counter(probe.group for probe in probes) == {
        Group.RELIABILITY: 1, Group.GENERALIZATION: 1, Group.LOCALITY: 2, Group.PORTABILITY: 1,
        Group.ROBUSTNESS: 4,
    }  # fmt: skip
    texts = {probe.kind: probe.text for probe in probes}
    assert texts["neighbour after the edit"] == "The mayor of Moss is Person 2. The mayor of Paris is"
    assert texts["misspelling"] == "The mayor of Msos is"
    assert texts["doubt"] == "Many people think it is Elder 2. The mayor of Moss is"
    assert texts["long context"].endswith(" The mayor of Moss is")
    assert [probe.answers for probe in probes if probe.kind == "one_hop"] == [("Halden",)]


def test_a_negative_that_another_edit_of_the_round_answers_is_ambiguous(
    benchmark_of_places: Benchmark,
) -> None:
    """It counts neither for nor against a method."""
    twin = place_case(7, "Paris")  # every case's neighbour asks for this
    both = Benchmark(name="b", role=benchmark_of_places.role, cases=(place_case(0, "Oru"), twin))
    (together,), _ = rounds(both, edits=2, ask=2, seed=0)
    assert any(probe.is_ambiguous for case in together.cases for probe in case.probes)
    for alone in rounds(both, edits=1, ask=2, seed=0)[0]:
        own = [probe for case in alone.cases if case.case.id == "place-0" for probe in case.probes]
        assert not any(probe.is_ambiguous for probe in own)
