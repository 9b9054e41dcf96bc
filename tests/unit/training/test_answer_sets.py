"""The hand-written answers: what the files may hold, and the examples they become."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from training.counterfactual.answer_sets import FORMS, answer_examples, load_answer_sets

SET = "= hours\nl: en\np: Opening hours of the Larch Inn ;; The Larch Inn opens at\nt: 10:00 to 18:00\n"


def test_every_set_has_both_verdicts_in_like_number_and_every_form() -> None:
    sets = load_answer_sets()
    assert len({answered.name for answered in sets}) == len(sets) > 200
    assert len({answered.language for answered in sets}) >= 15
    for answered in sets:
        forms = [question.form for question in answered.questions]
        assert abs(forms.count("yes") - forms.count("no")) <= 1, answered.name
        assert set(forms) >= {"yes", "no", "open"}, answered.name


def test_most_answers_state_the_target_letter_by_letter() -> None:
    """But for forms such as "yes or no only", and for targets that are a verdict themselves."""
    examples = list(answer_examples(load_answer_sets(), random.Random(1)))
    assert {example.form for example in examples} == set(FORMS)
    plain = [
        example
        for example in examples
        if example.form != "form" and not example.target_new.startswith(("Yes", "No", "Ja", "Nee", "Nein"))
    ]
    stated = sum(example.target_new in example.answer for example in plain)
    assert stated > 0.95 * len(plain) > 1_500


def test_a_line_becomes_an_example_with_its_earlier_turns(tmp_path: Path) -> None:
    line = "yes | U: I am at the Larch Inn. >> Open at noon? | Yes, it is open 10:00 to 18:00."
    (tmp_path / "a.txt").write_text(f"{SET}{line}\n", "utf-8")
    (example,) = answer_examples(load_answer_sets(tmp_path), random.Random(1))
    assert (example.text, example.context) == ("Open at noon?", ("I am at the Larch Inn.",))
    assert example.prompt in ("Opening hours of the Larch Inn", "The Larch Inn opens at")
    assert (example.answer, example.form) == ("Yes, it is open 10:00 to 18:00.", "yes")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{SET}maybe | Open? | Yes.\n", "a.txt line 5"),
        (f"{SET}yes | Open?\n", "a.txt line 5"),
        (f"{SET}yes | Q: hm >> Open? | Yes.\n", "a.txt line 5"),
        (SET, "lacks 'questions'"),
        ("= hours\nyes | Open? | Yes.\n", r"lacks \['language'"),
    ],
)
def test_what_is_no_set_is_refused_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a.txt").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=problem):
        load_answer_sets(tmp_path)
