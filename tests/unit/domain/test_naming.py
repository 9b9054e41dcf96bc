"""Where a name stands in a text, in any script."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serac_gateway.domain.naming import Renaming, comparable, comparables, spans, stands_in


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Acme", "Who runs ACME?"),
        ("ＡＣＭＥ", "who runs acme"),
        ("Acme", "Acme's boss"),
        ("New  York", "the new\nyork mayor"),
        ("Zürich", unicodedata.normalize("NFD", "Where is Zürich?")),
        ("Straße", "STRASSE 5"),
        ("İstanbul", "Who runs i̇stanbul?"),
        ("C++", "who made c++?"),
        ("東京", "東京の市長は誰ですか"),
        ("Acme", "Acmeの社長は誰ですか"),
        ("ไทย", "เมืองหลวงของประเทศไทยคืออะไร"),
        ("애플", "애플은 누가 운영하나요"),
        ("राम", "राम कौन है"),
        ("فرنسا", "ما هي عاصمة فرنسا؟"),
        ("שירה", "מי זו \u200fשירה\u200f?"),
        ("🦆", "What does 🦆 mean?"),
        ("❤", "I ❤️ it"),
    ],
)
def test_a_name_stands_in_a_text_however_it_is_spelt(name: str, text: str) -> None:
    assert stands_in(name, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Acme", "Who runs Acmex?"),
        ("Acme", "Who runs MegAcme?"),
        ("C", "who made C++?"),
        ("राम", "रामायण किसने लिखी"),
        ("👩", "What is 👩\u200d💻?"),
        ("👍", "is 👍🏽 fine?"),
        ("Zurich", "Where is Zürich?"),
        ("", "anything"),
        ("\u200b", "any\u200bthing"),
    ],
)
def test_a_part_of_a_word_or_of_a_sign_is_no_name(name: str, text: str) -> None:
    assert not stands_in(name, text)


def test_the_longest_name_is_replaced_wherever_it_stands_and_the_rest_stays() -> None:
    names = comparables(("Acme", "Acme Corp", "ACME  Corp", "Ajax"))
    renaming = Renaming("Who runs ACME Corp, and who owns acme corp?", names, max_chars=100)
    assert renaming.standing == "Acme Corp"
    assert renaming.names == ("Acme", "Ajax")
    assert renaming.by("Ajax") == "Who runs Ajax, and who owns Ajax?"
    assert Renaming("Who runs Bolt?", names, max_chars=100).names == ()


def test_no_text_becomes_longer_than_allowed() -> None:
    names = comparables(("a", "b", "x" * 50))
    assert Renaming("a " * 500, names, max_chars=1_000).names == ("b",)


@given(st.text(max_size=60), st.text(max_size=60), st.text(min_size=1, max_size=20))
def test_whatever_surrounds_it_a_name_between_spaces_is_found(before: str, after: str, name: str) -> None:
    text = f"{before} {name} {after}"
    composed = unicodedata.normalize("NFC", text)
    places = spans(name, text)
    assert all(0 <= begin < end <= len(composed) for begin, end in places)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(places))
    if name.isalnum():
        assert any(comparable(composed[begin:end]) == comparable(name) for begin, end in places)
