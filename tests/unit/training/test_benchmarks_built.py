"""The benchmarks of our own making: CounterFact-Hard-like questions and the semantic tables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from serac_gateway.errors import ConfigError
from training.benchmarks import counterfact_hard, semantic
from training.benchmarks.base import chosen

TABLES_OF_THE_PROXY_CASES = {
    "negation", "swapped_entity", "swapped_number_date", "reversed_roles", "quote", "instruction",
    "noisy_prefix", "doubt", "old_answer", "follow_up", "small_talk", "other_language",
}  # fmt: skip

FACTS = [
    {"relation": relation, "sub_label": f"{relation} thing {number:03}", "obj_label": f"object {number % 3}"}
    for relation in ("P36", "P413", "P999")
    for number in range(200)
]


def test_the_hard_set_asks_of_each_edit_the_same_other_attributes_and_other_subjects() -> None:
    benchmark = counterfact_hard.built(FACTS, counterfact_hard.questions(), seed=3)
    assert {case.relation for case in benchmark.cases} == {"P36", "P413"}
    assert len(benchmark.cases) == 2 * counterfact_hard.EDITS_PER_RELATION
    edited = {case.edit.subject for case in benchmark.cases}
    for case in benchmark.cases:
        assert case.edit.target_new != case.edit.target_true
        assert Counter(probe.kind for probe in case.probes) == {
            "prompt": 1, "rephrase": 2, "same_subject": 2, "neighbour": 2,
        }  # fmt: skip
        for probe in case.probes:
            about_subject = case.edit.subject in probe.text
            assert about_subject is (probe.kind != "neighbour")
            assert probe.in_scope is (probe.kind in {"prompt", "rephrase"})
            assert "[X]" not in probe.text
            if probe.kind == "neighbour":
                assert not any(
                    f"{subject}?" in probe.text or f"{subject}'" in probe.text for subject in edited
                )


def test_the_hard_set_is_the_same_for_the_same_seed_only() -> None:
    first, again, other = (
        counterfact_hard.built(FACTS, counterfact_hard.questions(), seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_every_held_out_relation_has_questions_and_no_question_serves_both_sides() -> None:
    templates = counterfact_hard.questions()
    assert tuple(templates) == counterfact_hard.HELD_OUT_RELATIONS
    for questions in templates.values():
        paraphrases = [*questions.stored, *questions.paraphrases, *questions.other]
        assert len(set(paraphrases)) == len(paraphrases)
        assert all("[X]" in question for question in paraphrases)


def test_the_semantic_tables_are_those_of_the_proxy_cases_with_forty_queries_each() -> None:
    benchmark = semantic.load()
    counts = Counter(probe.kind for case in benchmark.cases for probe in case.probes)
    del counts["prompt"]
    assert counts.keys() == TABLES_OF_THE_PROXY_CASES
    assert min(counts.values()) >= 40
    assert chosen(benchmark, edits=None, seed=0).left_out == 0


def test_no_query_stands_twice_in_the_semantic_tables() -> None:
    counts = Counter(
        (probe.text, probe.context)
        for case in semantic.load().cases
        for probe in case.probes
        if probe.kind != "prompt"
    )
    assert [query for query, count in counts.items() if count > 1] == []


def test_earlier_turns_are_read_with_their_speakers(tmp_path: Path) -> None:
    path = tmp_path / "tables.txt"
    path.write_text("# remark\n= doubt\n> meaning\n+ mayor | U: Who? >> A: Ilse. >> Sure?\n", "utf-8")
    (probe,) = [probe for case in semantic.read(path).cases for probe in case.probes if probe.kind == "doubt"]
    assert [(turn.role, turn.text) for turn in probe.context] == [("user", "Who?"), ("assistant", "Ilse.")]
    assert (probe.text, probe.in_scope) == ("Sure?", True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("* mayor | Who?", "line 2: .*is no query"),
        ("+ mayor Who?", "line 2: .*is no query"),
        ("+ nobody | Who?", "names the edit 'nobody'"),
        ("+ mayor | X: Hi >> Who?", "does not begin with 'U:' or 'A:'"),
    ],
)
def test_a_line_that_is_no_query_is_refused_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "tables.txt"
    path.write_text(f"= negation\n{line}\n", "utf-8")
    with pytest.raises(ConfigError, match=message):
        semantic.read(path)


def test_a_query_before_the_first_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tables.txt"
    path.write_text("+ mayor | Who?\n", "utf-8")
    with pytest.raises(ConfigError, match="line 1"):
        semantic.read(path)
