"""Verbs with two roles, and questions in other languages."""

from __future__ import annotations

import pytest

from training.fact_source import FactSource
from training.facts import Fact, Names
from training.pairs import Pair
from training.relations import load_pools, load_relations
from training.role_reversals import ASKED, TURNED, VERBS, language_pairs, role_pairs

PEOPLE = ("Ada Stone", "Ben Marsh", "Cleo Field", "Dan Rook", "Eve Lund", "Finn Holt")


def source() -> FactSource:
    relations = load_relations()
    facts = [Fact("P19", person, city) for person, city in zip(PEOPLE, ("Rome", "Oslo") * 3, strict=True)]
    pools = {
        **load_pools(),
        "company": ("Acme", "Bolt & Co", "Corvane", "Dunmore", "Elk Ltd"),
        "city": ("Rome", "Oslo"),
        "profession": ("baker", "judge"),
    }
    kept = [relations[rid] for rid in ("P19", "P20", "P569", "P106")]
    return FactSource(kept, facts, Names(facts, pools, relations), [], 3)


@pytest.fixture(scope="module")
def roles() -> list[Pair]:
    return [pair for pair in role_pairs(source(), 300)]


def test_the_same_words_with_the_roles_turned_are_out_of_scope(roles: list[Pair]) -> None:
    decided = 0
    for pair in roles:
        for verb in VERBS:
            active, passive = f"Whom did {pair.subject} {verb.base}?", f"Who {verb.past} {pair.subject}?"
            for one, other in ((active, passive), (passive, active)):
                if pair.prompt == one and pair.text in (one, other):
                    assert pair.in_scope is (pair.text == one)
                    decided += 1
    assert decided


def test_no_slot_stays_empty_and_no_edit_is_about_itself(roles: list[Pair]) -> None:
    for pair in roles:
        assert not any(mark in f"{pair.prompt} {pair.text} {pair.target}" for mark in "[]{}")
        assert pair.target != pair.subject


def test_both_roles_have_as_many_forms() -> None:
    assert len(ASKED) == len(TURNED) == len(set(ASKED) | set(TURNED)) // 2
    assert len({(verb.base, verb.kind) for verb in VERBS}) == len(VERBS)


def test_another_language_is_in_scope_for_the_fact_alone() -> None:
    relations = load_relations()
    foreign = {rid: {text for _, text in relations[rid].foreign} for rid in ("P19", "P20", "P569", "P106")}
    pairs = list(language_pairs(source(), 40))
    assert {pair.in_scope for pair in pairs} == {True, False}
    for pair in pairs:
        if pair.in_scope:
            assert pair.subject is not None
            template = pair.text.replace(pair.subject, "[X]")
            assert any(template in texts for texts in foreign.values())
            assert pair.subject in pair.prompt
