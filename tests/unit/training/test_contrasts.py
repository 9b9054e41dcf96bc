"""The hand-written contrast sets: read, filled, split, and refused where they are malformed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from training.data.contrasts import contrast_pairs, filled_in, load_contrast_sets, query_of
from training.scope.validation_sets import contrast_benchmark

SET = """= opening time
p: When does [X] open? ;; [X] opens at
t: 6 pm ;; noon
o: 5 pm
x: Old Quay ;; Tin Yard
z: Old Bay ;; Zinc Yard
+ paraphrase | What time does [X] start business?
+ doubt | U: When does [X] open? >> A: At [T]. >> Sure? I read [O].
- entity | When does [Z] open?
"""


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "made.txt").write_text(text, encoding="utf-8")
    return tmp_path


def test_the_slots_of_a_set_are_filled_from_one_subject_and_its_lookalike(tmp_path: Path) -> None:
    (contrast,) = load_contrast_sets(written(tmp_path, SET))
    filling = filled_in(contrast, random.Random(0), 1)
    assert (filling.subject, filling.lookalike) == ("Tin Yard", "Zinc Yard")
    assert "Tin Yard" in filling.prompt
    assert filling.fill("[X] [Z] [T] [O]") == f"Tin Yard Zinc Yard {filling.target} 5 pm"


def test_pairs_carry_the_context_that_the_gateway_would_read(tmp_path: Path) -> None:
    sets = load_contrast_sets(written(tmp_path, SET))
    pairs = list(contrast_pairs(sets, random.Random(0), [], rounds=2))
    held_out = sets[0].is_held_out
    assert len(pairs) == (0 if held_out else 6)
    doubts = [pair for pair in pairs if pair.kind == "contrast, doubt"]
    assert len(doubts) == (0 if held_out else 2)
    for pair in doubts:
        assert pair.context == (f"When does {pair.subject} open?", f"At {pair.target}.")
        assert pair.in_scope
    assert {pair.subject for pair in doubts} == (set() if held_out else {"Old Quay", "Tin Yard"})


def test_a_set_of_another_language_has_names_in_its_script_and_system_prompts(tmp_path: Path) -> None:
    text = SET.replace("p: When", "l: ru\nv: Олд-Ки ;; Тин-Ярд\np: When")
    text += "- task | S: Translate into French. >> Когда открывается [V]?\n"
    (contrast,) = load_contrast_sets(written(tmp_path, text))
    filling = filled_in(contrast, random.Random(0), 1)
    query = query_of(filling, contrast.lines[-1])
    assert contrast.language == "ru"
    assert query is not None
    assert (query.text, query.instructions) == ("Когда открывается Тин-Ярд?", "Translate into French.")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("z: Old Bay ;; Zinc Yard", "z: Old Bay"), "a lookalike for every subject"),
        (("t: 6 pm ;; noon\n", ""), "targets"),
        (("x: Old Quay", "v: The Quay\nx: Old Quay"), "1 variants of 2 subjects"),
        (("- entity |", "* entity |"), "neither a part nor a query"),
        (("U: When", "X: When"), "begins with neither"),
    ],
)
def test_a_damaged_set_is_refused_with_its_place(
    tmp_path: Path, damage: tuple[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_contrast_sets(written(tmp_path, SET.replace(*damage)))
    assert "made.txt line 1" in str(caught.value)


def test_the_shipped_sets_are_whole_and_some_are_held_out() -> None:
    sets = load_contrast_sets()
    held_out = {contrast.name for contrast in sets if contrast.is_held_out}
    assert 0.05 < len(held_out) / len(sets) < 0.25
    assert {case.edit.subject for case in contrast_benchmark(sets, seed=1).cases}
    for contrast in sets:
        for place in range(len(contrast.subjects)):
            filling = filled_in(contrast, random.Random(0), place)
            texts = [filling.prompt, filling.target, *(filling.fill(line.text) for line in contrast.lines)]
            assert not [
                text for text in texts if any(slot in text for slot in ("[X]", "[Z]", "[V]", "[T]", "[O]"))
            ]


def test_what_is_held_out_gives_no_pair() -> None:
    sets = load_contrast_sets()
    subjects = {subject for contrast in sets if contrast.is_held_out for subject in contrast.subjects}
    others = {subject for contrast in sets if not contrast.is_held_out for subject in contrast.subjects}
    seen = {pair.subject for pair in contrast_pairs(sets, random.Random(0), [], rounds=1)}
    assert seen
    assert not seen & (subjects - others)
