"""The answers that benchmarks carry, and the benchmarks made for answers: multi-hop, yes/no, suppression."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from serac_gateway.domain.edits import EditKind
from serac_gateway.errors import ConfigError
from tests.unit.training.test_benchmarks import ROME_ROW, ZSRE_ROW, written
from training.benchmarks import counterfact, fever, knowedit, mquake, suppression, wikifactdiff, yes_no, zsre
from training.benchmarks.base import Benchmark, Case, Role, chosen, fact, prepared, probes, stored
from training.data.relations import Relation

FRANCE = {
    "prompt": "{} is the capital of", "relation_id": "P1376", "question": "Which country is Lyon capital of?",
    "subject": "Lyon", "target_new": {"str": "Oru", "id": "Q2"}, "target_true": {"str": "France", "id": "Q1"},
}  # fmt: skip


def hop_row(number: int, *, edits: list[dict[str, object]], triples: list[list[str]]) -> dict[str, object]:
    edited = [[f"Q-{edit['subject']}", edit["relation_id"], edit["target_new"]["id"]] for edit in edits]  # type: ignore[index]
    return {
        "case_id": number, "requested_rewrite": edits,
        "questions": [f"Who heads it, {way}?" for way in "abc"],
        "new_answer": "Anna Berg", "new_answer_alias": ["A. Berg"], "new_single_hops": [{}, {}],
        "orig": {"edit_triples": edited, "new_triples": [*edited, *triples]},
    }  # fmt: skip


def test_zsre_carries_the_answers_of_its_locality_and_portability_questions(tmp_path: Path) -> None:
    row = {**ZSRE_ROW, "portability": {"New Question": "Where was its builder born?", "New Answer": "Moss"}}
    (case,) = zsre.read(written(tmp_path / "zsre.json", [row])).cases
    assert [(probe.kind, probe.answers) for probe in case.probes][-1] == ("locality", ("deep",))
    assert [(probe.kind, probe.text, probe.answers) for probe in case.entailed] == [
        ("one_hop", "Where was its builder born?", ("Moss",))
    ]


def test_neighbours_of_counterfact_have_the_true_answer_and_its_probes_are_clozes(tmp_path: Path) -> None:
    benchmark = counterfact.read(written(tmp_path / "counterfact.json", [ROME_ROW]))
    assert benchmark.clozes
    assert [probe.answers for probe in benchmark.cases[0].probes] == [(), (), (), ("Chile",)]


def test_wikifactdiffs_neighbour_has_its_own_answer(tmp_path: Path) -> None:
    row = {
        "subject": "Ana", "src": "Ana played for", "rephrase": "Ana plays for the", "alt": "Oru",
        "old": "Moss", "loc": "Ben plays for", "loc_ans": "Ketti",
    }  # fmt: skip
    (case,) = wikifactdiff.read(written(tmp_path / "wfd.json", [row])).cases
    assert case.probes[-1].answers == ("Ketti",)


def test_knowedits_portability_comes_by_kind_with_all_aliases(tmp_path: Path) -> None:
    row = {
        "subject": "Oru", "prompt": "The country of Oru is", "target_new": "Peru", "locality": {},
        "portability": {
            "Reasoning": [{"prompt": "The capital of the country of Oru is", "ground_truth": [["Lima", ""]]}],
            "Subject_Aliasing": [{"prompt": "The country of Orou is", "ground_truth": "Peru"}],
        },
    }  # fmt: skip
    (case,) = knowedit.read([written(tmp_path / "knowedit.json", [row])]).cases
    assert [(probe.kind, probe.answers) for probe in case.entailed] == [
        ("reasoning", ("Lima",)), ("subject_alias", ("Peru",)),
    ]  # fmt: skip


def test_a_fever_claim_wants_the_edits_verdict_in_every_form(tmp_path: Path) -> None:
    rows = [{"evidence": "e", "claim": "Oru is deep .", "label": label} for label in ("SUPPORTS",)]
    (case,) = fever.read(written(tmp_path / "fever.json", rows)).cases
    assert case.edit.target_new == "False"
    assert {probe.verdict for probe in case.probes if probe.in_scope} == {False}


def test_mquake_stores_all_edits_of_a_case_and_asks_what_follows_from_them(tmp_path: Path) -> None:
    head = {**FRANCE, "subject": "Oru", "relation_id": "P35", "question": "Who heads Oru?"}
    row = hop_row(1, edits=[FRANCE, head], triples=[])
    benchmark = mquake.read(written(tmp_path / "mquake.json", [row]))
    (case,) = benchmark.cases
    assert benchmark.role is Role.TEST
    assert [(draft.id, draft.prompt) for draft in stored(benchmark)] == [
        ("mquake-0", "Which country is Lyon capital of?"), ("mquake-0-2", "Who heads Oru?"),
    ]  # fmt: skip
    assert [(probe.kind, probe.text) for probe in case.probes] == [
        ("prompt", "Which country is Lyon capital of?"), ("rephrase", "Lyon is the capital of"),
    ]  # fmt: skip
    assert {probe.kind for probe in case.entailed} == {"2_hops"}
    assert {probe.answers for probe in case.entailed} == {("Anna Berg", "A. Berg")}


def test_equal_edits_of_two_cases_are_stored_once_and_both_cases_stay(tmp_path: Path) -> None:
    rows = [hop_row(number, edits=[FRANCE], triples=[]) for number in (1, 2)]
    benchmark = chosen(mquake.read(written(tmp_path / "mquake.json", rows)), edits=None, seed=0)
    assert len(benchmark.cases) == 2
    assert len(stored(benchmark)) == 1
    assert not any(probe.contested for case in prepared(benchmark).cases for probe in case.entailed)


def test_a_case_is_contested_when_the_edit_of_another_changes_one_of_its_hops(tmp_path: Path) -> None:
    other = {**FRANCE, "subject": "Oru", "relation_id": "P35", "question": "Who heads Oru?"}
    rows = [
        hop_row(1, edits=[FRANCE], triples=[["Q-Oru", "P35", "Q9"]]),
        hop_row(2, edits=[other], triples=[]),
    ]
    first, second = prepared(mquake.read(written(tmp_path / "mquake.json", rows))).cases
    assert all(probe.contested for probe in first.entailed)
    assert not any(probe.contested for probe in second.entailed)


def test_a_file_that_is_not_mquake_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="row 0 is not in the form of MQuAKE"):
        mquake.read(written(tmp_path / "mquake.json", [dict(ZSRE_ROW)]))


CAPITAL = Relation(
    id="P36", name="capital", subject_type="country", object_type="city",
    yes_no=("Is [Y] the capital of [X]?",), statements=("The capital of [X] is [Y]",),
)  # fmt: skip


def capitals(count: int) -> Benchmark:
    return Benchmark(
        name="capitals",
        role=Role.VALIDATION,
        cases=tuple(
            msgspec.structs.replace(
                fact(
                    f"case-{number}",
                    prompt=f"What is the capital of Land {number}?",
                    target_new=f"New {number}",
                    target_true=f"Old {number}",
                    subject=f"Land {number}",
                    probes=probes("rephrase", [f"Name the capital of Land {number}."], in_scope=True),
                ),
                relation="P36",
            )
            for number in range(count)
        ),
    )


def wanted(case: Case, kind: str) -> list[tuple[str, bool | None]]:
    return [(probe.text, probe.verdict) for probe in case.probes if probe.kind == kind]


def test_the_edits_value_wants_yes_and_every_other_value_no() -> None:
    benchmark = yes_no.built(capitals(12), {"P36": CAPITAL}, seed=1)
    assert len(benchmark.cases) == 12
    for number, case in enumerate(benchmark.cases):
        assert wanted(case, "yes") == [(f"Is New {number} the capital of Land {number}?", True)]
        assert wanted(case, "no_old") == [(f"Is Old {number} the capital of Land {number}?", False)]
        ((text, verdict),) = wanted(case, "no_third")
        assert verdict is False
        assert f"New {number} the" not in text
        ((claim, holds),) = wanted(case, "claim")
        assert holds is (f"New {number}" in claim)
    assert {wanted(case, "claim")[0][1] for case in benchmark.cases} == {True, False}


def test_relations_without_yes_no_forms_are_left_out() -> None:
    bare = msgspec.structs.replace(CAPITAL, yes_no=())
    assert yes_no.built(capitals(3), {"P36": bare}, seed=1).cases == ()


def test_a_suppression_hides_the_true_answer_from_ten_attempts() -> None:
    benchmark = suppression.built(capitals(12), {"P36": CAPITAL}, cases=5)
    assert len(benchmark.cases) == 5
    for case in benchmark.cases:
        assert case.edit.kind is EditKind.SUPPRESSION
        assert case.edit.target_true is not None
        assert case.edit.target_true.startswith("Old")
        assert len(case.probes) == 10
        assert all(probe.in_scope for probe in case.probes)
        assert sum(case.edit.target_true in probe.text for probe in case.probes) == 1  # the guess


@pytest.mark.data
def test_mquakes_noise_is_the_published_998_cases() -> None:
    cases = prepared(mquake.load()).cases
    assert sum(any(probe.contested for probe in case.entailed) for case in cases) == 998


@pytest.mark.data
def test_yes_no_and_suppressions_are_of_held_out_relations_only() -> None:
    from training.benchmarks.counterfact_hard import HELD_OUT_RELATIONS

    for load, probe_count in ((yes_no.load, 5), (suppression.load, 10)):
        benchmark = load()
        assert {case.relation for case in benchmark.cases} <= set(HELD_OUT_RELATIONS)
        assert all(len(case.probes) == probe_count for case in benchmark.cases)
    assert sum(len(case.probes) for case in benchmark.cases) == 500
