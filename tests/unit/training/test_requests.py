"""Request forms: whole requests around a question, read as the gateway reads them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from training.data.pairs import Pair
from training.data.requests import edits_with_queries, load_request_forms, request_pairs

EDIT = {"prompt": "Who runs Larch Hall?", "target": "Ada Quill", "subject": "Larch Hall"}
PAIRS = [
    Pair(**EDIT, text="head of Larch Hall?", in_scope=True, kind="paraphrase"),  # type: ignore[arg-type]
    Pair(**EDIT, text="How old is Larch Hall?", in_scope=False, kind="same subject"),  # type: ignore[arg-type]
    Pair(**EDIT, text="and now?", context=("x",), in_scope=True, kind="follow-up"),  # type: ignore[arg-type]
]
PASSAGES = [f"Filler sentence number {n} about nothing." for n in range(9)]


def made(tmp_path: Path, *lines: str, count: int = 40) -> list[Pair]:
    (tmp_path / "forms.txt").write_text("\n".join(lines), encoding="utf-8")
    return list(
        request_pairs(
            edits_with_queries(PAIRS), load_request_forms(tmp_path), random.Random(2),
            passages=PASSAGES, unrelated=["how do tides work?"], count=count,
        )
    )  # fmt: skip


def test_the_system_prompt_is_read_as_instructions(tmp_path: Path) -> None:
    pairs = made(tmp_path, "- system task | S: Translate into French. >> [Q]")
    assert pairs
    for pair in pairs:
        assert (pair.text, pair.instructions, pair.in_scope) == (
            "head of Larch Hall?",
            "Translate into French.",
            False,
        )


def test_an_answer_wanted_to_another_question_is_out_of_scope(tmp_path: Path) -> None:
    pairs = made(tmp_path, "+ mail | Dear all,\\n\\n[F]\\n\\n[Q]")
    assert {pair.in_scope for pair in pairs} == {True, False}
    for pair in pairs:
        assert pair.in_scope == ("head of Larch Hall?" in pair.text)
        assert "Filler sentence" in pair.text


def test_every_slot_is_filled(tmp_path: Path) -> None:
    (pair, *_) = made(tmp_path, "- rag other | [P] [F] [R] [O] [A] [X]\\n[S]")
    for expected in (
        "Who runs Larch Hall: Ada Quill.",
        "Ada Quill",
        "how do tides work?",
        "How old is Larch Hall?",
    ):
        assert expected in pair.text
    assert "[" not in pair.text


def test_a_malformed_form_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "forms.txt").write_text("+ plain | [Q]\nno form\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"forms\.txt line 2: 'no form'"):
        load_request_forms(tmp_path)
    (tmp_path / "forms.txt").write_text("+ plain | X: hello >> [Q]\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"forms\.txt line 1: the turn 'X: hello'"):
        load_request_forms(tmp_path)


def test_the_shipped_forms_are_many_and_of_both_kinds() -> None:
    forms = load_request_forms()
    wanted = sum(form.wants_answer for form in forms)
    assert len(forms) > 400
    assert 0.35 < wanted / len(forms) < 0.65
    assert any(turn.role == "system" for form in forms for turn in form.turns)
