"""Rules about spelling: what is the same text, and what are other numbers, in every script."""

from __future__ import annotations

import pytest

from serac_gateway.models.classifiers.spelling import asks_the_same


@pytest.mark.parametrize(
    ("prompt", "text", "same"),
    [
        ("Who is the CEO of Acme?", "who is the ceo of acme", True),
        ("Opening Hours", "OPENING HOURS!!", True),
        ("Café Lorient: opening hours", "cafe lorient opening hours", True),
        ("Ｗｈｏ　ｒｕｎｓ　Ａｃｍｅ？", "who runs acme", True),
        ("Who made C++?", "who made C#", False),
        ("Who made C++?", "who made c", False),
        ("price in $", "price in €", False),
        ("50%", "50", False),
        ("谁是阿克梅的总经理？", "谁是阿克梅的总经理", True),
        ("谁是阿克梅的总经理？", "谁是星河的总经理？", False),
        ("क्या समय है?", "क्या समय हैं?", False),  # a vowel sign is no accent that people leave out
        ("?", "?", False),
        ("", "", False),
    ],
)
def test_the_same_text_but_for_its_spelling(prompt: str, text: str, same: bool) -> None:
    assert asks_the_same(prompt, text) is same
