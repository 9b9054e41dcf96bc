"""Differences word by word."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serac_gateway.console.diffs import MAX_WORDS, as_text, words_diff


def test_words_that_stay_are_not_marked() -> None:
    """Only the word that changed is."""
    pieces = [(piece.kind, piece.text) for piece in words_diff("the old mayor", "the new mayor")]
    assert pieces == [("same", "the "), ("removed", "old"), ("added", "new"), ("same", " mayor")]


@given(st.text(), st.text())
def test_both_texts_can_be_read_off_a_difference(before: str, after: str) -> None:
    """Nothing is lost."""
    pieces = words_diff(before, after)
    assert "".join(piece.text for piece in pieces if piece.kind != "added") == before
    assert "".join(piece.text for piece in pieces if piece.kind != "removed") == after


def test_long_texts_are_compared_as_a_whole() -> None:
    """A page stays quick."""
    before = "word " * MAX_WORDS
    assert [piece.kind for piece in words_diff(before, before + "more")] == ["removed", "added"]


def test_lists_and_nothing_have_texts_too() -> None:
    """A line each."""
    assert as_text(["a", "b"]) == "a\nb"
    assert as_text(None) == ""
    assert as_text({"region": ["eu"]}) == "region: eu"
