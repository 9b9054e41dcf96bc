"""The right answers that training makes, by form."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from serac_gateway.domain.edits import EditKind
from training.counterfactual import mixture
from training.counterfactual import target_answers as answers
from training.counterfactual.contrast_examples import contrast_examples, kind_of
from training.counterfactual.examples import Example
from training.counterfactual.fact_examples import fact_examples, odd_value
from training.counterfactual.instruction_examples import instruction_examples, obeying
from training.counterfactual.mixture import ExampleSettings, training_examples, validation_examples
from training.counterfactual.validation import contains
from training.data.contrasts import load_contrast_sets
from training.data.embedding import open_embed
from training.data.fact_source import FactSource
from training.data.facts import Fact, Names
from training.data.files import data_folder
from training.data.relations import Relation, load_pools
from training.data.world import load_world
from training.runs import load_records, save_records

BIRTH = Relation(
    id="P19", name="place of birth", subject_type="person", object_type="city", nouns=("birthplace",),
    questions=("Where was [X] born?", "What is the birthplace of [X]?"),
    statements=("[X] was born in [Y]", "[X] hails from [Y]"), yes_no=("Was [X] born in [Y]?",),
    foreign=(("de", "Wo wurde [X] geboren?"),),
)  # fmt: skip
TRADE = Relation(
    id="P106", name="occupation", subject_type="person", object_type="profession", nouns=("occupation",),
    questions=("What does [X] do for a living?",), statements=("[X] works as [Y]",),
)  # fmt: skip
FACTS = [
    Fact("P19", "Ana Oru", "Halden"), Fact("P19", "Bo Tak", "Merrow"), Fact("P19", "Cy Vel", "Lund"),
    Fact("P106", "Ana Oru", "potter"), Fact("P106", "Bo Tak", "baker"),
]  # fmt: skip


def source(seed: int = 1) -> FactSource:
    relations = {"P19": BIRTH, "P106": TRADE}
    return FactSource(
        [BIRTH, TRADE], FACTS, Names(FACTS, load_pools(), relations), ["The sea was calm."], seed
    )


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("The mayor of Marrowby is", "The mayor of Marrowby is Ida."),
        ("Who is the mayor of Marrowby?", "The mayor of Marrowby is Ida."),
        ("What's Marrowby's highest hill?", "Marrowby's highest hill is Ida."),
        ("Which hill does Marrowby have?", None),
        ("mayor Marrowby", None),
        ("Who was born in", None),
    ],
)
def test_an_edit_becomes_a_sentence_only_where_its_own_words_make_one(
    prompt: str, sentence: str | None
) -> None:
    assert answers.sentence(prompt, "Ida") == sentence


def test_a_statement_serves_as_the_sentence_if_the_edit_has_its_words() -> None:
    statements = ("Ida hails from Lund", "Ida was born in Lund")
    assert answers.sentence("Where was Ida born?", "Lund", statements) == "Ida was born in Lund."


@pytest.mark.parametrize(
    ("text", "asserted", "said_before", "answer"),
    [
        ("Are you sure? I read Oslo.", "Oslo", "Lund", "Yes, I am sure: Lund."),
        ("Are you sure?", None, "Lund", "Yes, I am sure: Lund."),
        ("Are you sure?", None, "Oslo", "No, Lund."),
        ("No way, it's Oslo!", "Oslo", "Lund", "No, Lund."),
        ("Wasn't it Lund?", "Lund", "lund.", "Yes, Lund."),
    ],
)
def test_doubt_confirms_the_edit_and_corrects_an_old_answer(
    text: str, asserted: str | None, said_before: str | None, answer: str
) -> None:
    assert answers.doubted("Lund", text=text, asserted=asserted, said_before=said_before) == answer


@pytest.mark.parametrize(
    ("instruction", "answer"),
    [
        ("Always mention that it is closed.", "Please note that it is closed."),
        ("Refer people to the help desk.", "Please ask the help desk."),
        ("Be neutral.", "I give no opinion on the bridge."),
        ("Do not discuss it.", "I'm sorry, I cannot discuss that."),
        ("Call it Ember.", "It is called Ember."),
        ("Answer in rhymes.", None),
    ],
)
def test_an_instruction_of_a_known_pattern_is_obeyed_in_its_own_words(
    instruction: str, answer: str | None
) -> None:
    assert obeying(instruction, "the bridge") == answer


def test_every_example_of_a_fact_says_the_target_and_claims_are_judged_by_it() -> None:
    made = list(fact_examples(source(), 800))
    assert len(made) == 800
    assert {example.form for example in made} >= {
        "question",
        "cloze",
        "yes-no",
        "doubt in context",
        "nothing more",
    }
    for example in made:
        assert contains(example.answer, example.target_new), example
        if example.form in ("yes-no", "statement"):
            says_target = contains(example.text, example.target_new)
            assert example.is_agreement is not None
            assert example.is_agreement <= says_target, example
    agreements = [example.is_agreement for example in made if example.form == "yes-no"]
    assert 0.35 < sum(bool(example) for example in agreements) / len(agreements) < 0.75


def test_a_suppressed_example_answers_with_the_refusal_whatever_is_tried() -> None:
    made = [example for example in fact_examples(source(), 800) if example.kind is EditKind.SUPPRESSION]
    assert made
    assert all(example.answer == example.target_new for example in made)


def test_equal_seeds_make_equal_examples_and_a_file_keeps_them(tmp_path: Path) -> None:
    made = [*fact_examples(source(3), 50), *instruction_examples(source(3), 20)]
    assert made == [*fact_examples(source(3), 50), *instruction_examples(source(3), 20)]
    save_records(tmp_path / "examples.jsonl", made)
    assert load_records(tmp_path / "examples.jsonl", Example) == made


def test_made_up_values_are_hardly_ever_the_same() -> None:
    rng = random.Random(1)
    values = [odd_value(rng) for _ in range(500)]
    assert len(set(values)) > 450
    assert any(not value.isascii() for value in values)
    assert any(value[:1].isdigit() for value in values)


def test_contrast_lines_are_answered_by_the_value_they_assert() -> None:
    sets = load_contrast_sets()
    made = list(contrast_examples(sets, random.Random(1), rounds=1))
    claims = [example for example in made if example.form == "yes-no" and example.is_agreement is not None]
    assert len(claims) > 200
    assert all(
        example.is_agreement is contains(example.text, example.target_new)
        for example in claims
        if example.target_new.isalpha()
        and example.target_new.isascii()
        and example.target_new not in ("True", "SUPPORTS")  # verdicts on claims, not values
        and example.target_new not in example.prompt
    )
    kinds = {kind_of(example) for example in sets}
    assert kinds == set(EditKind)
    assert all(
        example.answer == example.target_new for example in made if example.kind is EditKind.SUPPRESSION
    )


@pytest.mark.data
def test_held_out_relations_and_sets_are_in_no_training_example(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each query of the sets is embedded for the filter: a few dozen sets are enough for its being asked.
    sets = load_contrast_sets()[::20]
    monkeypatch.setattr(mixture, "load_contrast_sets", lambda: sets)
    world = load_world(data_folder())
    settings = ExampleSettings(
        held_out_relations=("P36", "P1303"), facts=400, zsre_rows=400, counterfact_rows=200,
        knowedit_rows=100, pokemqa_rows=50, instructions=20,
    )  # fmt: skip
    made = training_examples(world, data_folder(), settings, open_embed())
    held_out_phrasings = {
        phrasing.replace("[X]", "").strip()
        for rid in ("P36", "P1303")
        for phrasing in world.relations[rid].questions
    }
    said_before = [
        example for example in made for p in held_out_phrasings if len(p) > 20 and example.prompt.endswith(p)
    ]
    assert said_before == []
    zsre = [example for example in made if example.source == "zsre"]
    assert len(zsre) > 300
    assert not [example for example in zsre if "capital" in example.prompt.casefold()]
    checked = validation_examples(world, data_folder(), settings, per_source=40)
    trained_on = {(example.prompt, example.target_new) for example in made}
    facts = [example for example in checked if example.kind is EditKind.FACT]
    assert len(facts) > 120
    assert not [example for example in facts if (example.prompt, example.target_new) in trained_on]
