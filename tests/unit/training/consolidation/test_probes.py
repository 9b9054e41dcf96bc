"""What is held back is never trained on, and every edit has something to be judged by if possible."""

from __future__ import annotations

from pathlib import Path

import pytest

from serac_gateway.errors import ConfigError
from tests.unit.training.consolidation.test_live_edits import edit
from training.consolidation.probes import EditProbes, GivenProbes, plan_probes, read_given_probes

FOUR = edit("a", paraphrases=["Who heads it?", "Who leads it?", "Its boss?", "Its head?"])


def planned(*edits: object, **settings: object) -> list[EditProbes]:
    return plan_probes(edits, {}, **{"trains_wordings": True, "seed": 0, **settings})


def test_half_of_the_wordings_are_held_back_and_none_is_both() -> None:
    (probes,) = planned(FOUR)
    assert (len({*probes.trained} & {*FOUR.paraphrases}), len(probes.held_back)) == (2, 2)
    assert {*probes.trained, *probes.held_back} >= set(FOUR.paraphrases)
    assert not {*probes.trained} & {*probes.held_back, FOUR.prompt}
    assert planned(FOUR) == [probes]
    others = [planned(FOUR, seed=seed)[0].held_back for seed in range(20)]
    assert len(set(others)) > 1


def test_a_single_wording_is_held_back_and_none_is_replaced_by_rules() -> None:
    """Wordings by rule are trained on where there is one of the edit's own to judge by."""
    (single, bare, odd) = planned(
        edit("a", paraphrases=["Who heads it?"]),
        edit("b", prompt="Who is the mayor of Marrowby?"),
        edit("c", prompt="???"),
    )
    assert single.held_back == ("Who heads it?",)
    assert bare.held_back != ()
    assert bare.trained == ()
    assert bare.edit.prompt not in bare.held_back
    assert odd.held_back == ()


def test_a_method_that_takes_prompts_alone_trains_on_no_wording_and_holds_the_same_back() -> None:
    (probes,) = planned(FOUR, trains_wordings=False)
    assert probes.trained == ()
    assert probes.held_back == planned(FOUR)[0].held_back


def test_neighbours_are_the_prompt_with_other_subjects_but_never_what_another_edit_answers() -> None:
    prompts = {"a": "Marrowby", "b": "Quillon", "c": "Halyard"}
    edits = [
        edit(name, prompt=f"Who is the mayor of {subject}?", subject=subject)
        for name, subject in prompts.items()
    ]
    assert all(probes.neighbours == () for probes in planned(*edits)), "all are edited"
    edits[1] = edit("b", prompt="Who built Quillon?", subject="Quillon")
    assert planned(*edits)[0].neighbours == ("Who is the mayor of Quillon?",)
    assert planned(FOUR)[0].neighbours == (), "it has no subject"


def test_given_wordings_are_held_back_though_the_edit_has_them_too() -> None:
    given = {"a": GivenProbes(edit_id="a", held_back=FOUR.paraphrases, neighbours=("Who runs b?",))}
    (probes,) = plan_probes([FOUR], given, trains_wordings=True, seed=0)
    assert not {*probes.trained} & {*FOUR.paraphrases}
    assert probes.held_back == FOUR.paraphrases
    assert probes.neighbours == ("Who runs b?",)


@pytest.mark.parametrize("line", ['{"edit": "a"}', "x", '{"edit_id": 5}'])
def test_a_wrong_line_of_the_given_ones_is_named_with_the_form(tmp_path: Path, line: str) -> None:
    path = tmp_path / "probes.jsonl"
    path.write_text('{"edit_id": "a", "held_back": ["Who?"]}\n\n' + line)
    with pytest.raises(ConfigError, match=r"line 3 of the probes .*edit_id"):
        read_given_probes(path)
    with pytest.raises(ConfigError, match="cannot read the probes"):
        read_given_probes(tmp_path / "nowhere")
