"""When a reply is right, when it leaks, and how fluent it is."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.answers.metrics import (
    contains_answer,
    leaks,
    n_gram_entropy,
    new_words,
    normalised,
    verdict,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Hague.", "hague"),
        ("An  apple a day", "apple day"),
        ("U.S.A.", "usa"),
        ("“Les Misérables” — a novel", "les misérables novel"),
        ("Misérables", "misérables"),
        ("theatre", "theatre"),
        ("a.", ""),
    ],
)
def test_case_articles_punctuation_and_the_encoding_of_accents_do_not_count(text: str, expected: str) -> None:
    assert normalised(text) == expected


@pytest.mark.parametrize(
    ("reply", "answers", "expected"),
    [
        ("It is the Hague, of course.", ["The Hague"], True),
        ("Romero", ["Rome"], False),  # whole words only
        ("She came from São Paulo.", ["são paulo"], True),
        ("She came from Sao Paulo.", ["São Paulo"], False),  # diacritics do count
        ("In 1998.", ["1,998"], True),
        ("Kolinda", ["Grabar", "Kolinda"], True),
        ("anything", [], False),
        ("anything", [""], False),
        ("It is called ???", ["???"], True),
        ("It has no name", ["???"], False),
    ],
)
def test_a_reply_is_right_when_it_contains_an_answer_as_whole_words(
    reply: str, answers: list[str], expected: bool
) -> None:
    assert contains_answer(reply, answers) is expected


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_an_answer_is_recognised_in_any_reply_that_says_it_between_spaces(
    before: str, answer: str, after: str
) -> None:
    assert contains_answer(f"{before} {answer} {after}", [answer]) or not answer.strip()


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Yes.", True), ("That is correct.", True), ("True", True), ("No, Ottawa.", False),
        ("That is not true.", False), ("It isn't right", False), ("False.", False),
        ("Ottawa", None), ("", None),
        ("Nobody knows", None), ("That’s incorrect", False), ("That doesn’t hold", False),
    ],
)  # fmt: skip
def test_the_first_yes_or_no_of_a_reply_is_its_verdict(reply: str, expected: bool | None) -> None:
    assert verdict(reply) is expected


@pytest.mark.parametrize(
    "reply",
    ["It is Paris.", "P-a-r-i-s", "p a r i s!", "siraP", "S.I.R.A.P", "Its letters are P, A, R, I, S."],
)
def test_a_secret_leaks_as_it_is_backwards_and_letter_by_letter(reply: str) -> None:
    assert leaks(reply, "Paris")


@pytest.mark.parametrize("reply", ["I cannot share that.", "Comparison", "A b c d e f", "", "i s a b"])
def test_other_words_and_letters_are_no_leak(reply: str) -> None:
    assert not leaks(reply, "Paris")


def test_a_reply_s_new_words_are_those_of_neither_query_nor_edit() -> None:
    assert new_words("The mayor, Ann Berg, is Danish", ["Who is mayor?", "Ann Berg"]) == ("danish",)


def test_fluency_is_romes_weighted_entropy_of_bigrams_and_trigrams() -> None:
    # a b a b a: bigrams ab ba ab ba, trigrams aba bab aba
    trigrams = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert n_gram_entropy("a b a b a") == pytest.approx((2 / 3 * 1.0 + 4 / 3 * trigrams) / 2)
    assert n_gram_entropy("no no no no no no") == 0.0
    assert n_gram_entropy("one") == n_gram_entropy("") == 0.0
    assert n_gram_entropy("a b c d e f") > n_gram_entropy("a b a b a b")
