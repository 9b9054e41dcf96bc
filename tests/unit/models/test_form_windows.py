"""The pieces of a sentence that may ask for a form beside what the sentence asks."""

from __future__ import annotations

import pytest

from serac_gateway.models.forms.windows import MAX_CLAUSES, MAX_WINDOWS, clauses, rough_pieces, windows


def texts(sentence: str, spans: list[tuple[int, int]]) -> list[str]:
    return [sentence[begin:end] for begin, end in spans]


@pytest.mark.parametrize(
    ("sentence", "piece"),
    [
        ("In one word: who runs Brenholt Foods?", "In one word"),
        ("Tell me in German who runs Brenholt Foods.", "in German"),
        ("Who runs Brenholt Foods in one full sentence", "in one full sentence"),
        ("Nur ja oder nein – ist das Museum offen?", "Nur ja oder nein"),
        ("営業時間を箇条書きでお願いします", "箇条書きでお願いします"[1:]),
    ],
)
def test_a_form_at_the_beginning_the_end_or_within_is_a_piece(sentence: str, piece: str) -> None:
    """Without signs, too, and where no spaces part words."""
    assert piece in texts(sentence, windows(sentence))


def test_signs_within_numbers_part_no_clauses() -> None:
    """A time and a grouped number are one word."""
    sentence = "open at 10:30, with 2,340 seats"
    assert texts(sentence, clauses(sentence)) == ["open at 10:30", "with 2,340 seats"]


def test_the_pieces_of_a_long_sentence_are_bounded() -> None:
    """Each is embedded."""
    sentence = "word, " * 300
    assert len(windows(sentence)) <= MAX_WINDOWS
    assert len(clauses(sentence)) == MAX_CLAUSES
    assert len(rough_pieces(sentence)) <= MAX_CLAUSES + 4
    assert windows("hi") == []
    assert rough_pieces("") == []
