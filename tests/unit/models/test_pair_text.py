"""What the cross-encoder is shown: bounded, in one order, with the task at either end of a long text."""

from __future__ import annotations

import pytest

from serac_gateway.models.classifiers.pair_text import (
    MAX_EDIT_CHARS,
    MAX_TARGET_CHARS,
    MAX_TEXT_CHARS,
    edit_text,
    focused,
    request_text,
)

EDIT = edit_text("The CEO of Acme is", "Ada")
NOISE = "The weather was fine and nobody had anything to do with it. " * 20


def test_an_edit_is_its_prompt_and_its_answer() -> None:
    assert edit_text(" The CEO\n of Acme is ", "Ada\tStone") == "The CEO of Acme is → Ada Stone"
    long = edit_text("p " * 500, "t " * 500)
    assert len(long) <= MAX_EDIT_CHARS + MAX_TARGET_CHARS + 3


def test_instructions_and_earlier_turns_stand_before_the_text() -> None:
    assert (
        request_text("And now?", ("Hi", " ", "Who?"), "Be brief.", EDIT)
        == "system: Be brief. » Hi » Who? » And now?"
    )
    assert request_text("And now?", (), "", EDIT) == "And now?"


def test_of_a_long_text_both_ends_stay_and_what_is_like_the_edit() -> None:
    text = (
        f"Translate this for me please. {NOISE}Who is the CEO of Acme these days? {NOISE}Thanks in advance."
    )
    excerpt = focused(text, EDIT, MAX_TEXT_CHARS)
    assert len(excerpt) <= MAX_TEXT_CHARS + 40
    assert excerpt.startswith("Translate this for me please.")
    assert "Who is the CEO of Acme these days?" in excerpt
    assert excerpt.endswith("Thanks in advance.")


def test_likeness_needs_no_words_of_a_language() -> None:
    noise = "今日は天気がとても良かったです。" * 60
    excerpt = focused(
        f"{noise}アクメ社の社長は誰ですか？{noise}", edit_text("アクメ社の社長は", "エイダ"), MAX_TEXT_CHARS
    )
    assert "アクメ社の社長は誰ですか？" in excerpt


@pytest.mark.parametrize(
    "text", ["", "   ", "a" * 100_000, "? " * 60_000, "\n" * 70_000, "a b " * 40_000, "\x00" * 3_000]
)
def test_any_text_is_cut_to_the_bound(text: str) -> None:
    assert len(focused(text, EDIT, MAX_TEXT_CHARS)) <= MAX_TEXT_CHARS + 40
