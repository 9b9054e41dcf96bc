"""Names and words for a form are taken from the request as it writes them."""

from __future__ import annotations

import pytest

from serac_gateway.models.forms.arguments import (
    foreign_name,
    gapped,
    last_name,
    quoted,
    without_quoted,
    written_beginning,
    written_bullet,
    written_keys,
    written_marks,
    written_object,
)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ('a JSON object {"answer": ...} only', ("answer",)),
        ("as {city: …}", ("city",)),
        ('{"name": "string", "age": 0}', ("name", "age")),
        ("between <answer> and </answer>", ("answer",)),
        ('key "opening hours"', ("opening hours",)),
        ("the key `opening_hours`", ("opening_hours",)),
        ("キー「name」のJSON", ("name",)),
        ("mit dem Schlüssel „leitung“", ("leitung",)),
        ("con el campo «respuesta»", ("respuesta",)),
        ("in YAML under the key depth_of_lake please", ("depth_of_lake",)),
        ("キー名はclosed_dayで。", ("closed_day",)),
        ("as JSON with the key ceo", ()),
        ("what's the customer's name, as JSON", ()),
    ],
)
def test_keys_are_those_that_signs_mark(text: str, keys: tuple[str, ...]) -> None:
    """Objects, tags, quotation marks of any language, a last word behind a colon; no apostrophe."""
    assert written_keys(text) == keys


def test_latin_names_end_at_letters_of_another_script() -> None:
    """Particles and verbs are written on to them."""
    text = "키는 owner로, 键名为city, clé prix"
    words = ["키는", "owner", "로", "键名为", "city", "clé", "prix"]
    assert [word for word, _ in gapped(text, "_")] == words


def test_a_word_is_judged_by_those_around_it() -> None:
    """Four before it and two behind."""
    around = dict(gapped("who is it, as JSON with the key ceo and more", "_"))
    assert around["ceo"] == "JSON with the key _ and more"
    assert around["who"] == "_ is it"


def test_a_name_behind_the_last_colon_is_found() -> None:
    """Not one that more words follow."""
    assert last_name("YAML please, key: ceo.") == "ceo"
    assert last_name("as JSON: who runs it") is None


def test_an_object_is_to_be_filled_if_its_values_are_left_open() -> None:
    """One that quotes a question is none."""
    assert written_object('give {"free_from": …} please') == '{"free_from": …}'
    assert written_object('{"question": "Where was she born?"} as JSON') is None
    assert written_object("no braces") is None


def test_a_beginning_is_quoted_or_behind_a_colon() -> None:
    """Else there is none."""
    assert written_beginning('Begin your answer with "The CEO is".') == "The CEO is"
    assert written_beginning("Open your reply with: Dear reader,") == "Dear reader,"
    assert written_beginning("Begin with a greeting") is None


def test_quotations_are_found_and_left_out() -> None:
    """Their words say nothing of the form."""
    text = "Say \"it's here\" and „dort“, not 'this'"
    assert quoted(text) == ["it's here", "dort", "this"]
    assert without_quoted(text) == "Say \"…\" and „…“, not '…'"


def test_marks_without_an_end_quote_nothing() -> None:
    """However many there are."""
    assert quoted('"' + "a" * 500) == []
    assert quoted("'" * 2_001) == []


@pytest.mark.parametrize(("text", "marks"), [
    ("entre guillemets français « »", ("«", "»")), ("かぎ括弧「」で囲んで", ("「", "」")),
    ("in „“ bitte", ("„", "“")),
    ('in "" please', ('"', '"')), ("wrap it in quotes", None), ('the name "Bo" in quotes', None),
])  # fmt: skip
def test_marks_that_stand_empty_are_those_wanted(text: str, marks: tuple[str, str] | None) -> None:
    """A pair with a text between it quotes that text."""
    assert written_marks(text) == marks


@pytest.mark.parametrize(("text", "bullet"), [
    ("com marcador (*), sem mais nada", "*"), ("as a numbered list (1. ...)", "1."), ("start with •", "•"),
    ("as a bullet list", None), ("by 10-12 o'clock", None), ("room 1.5 or 1.", "1."),
])  # fmt: skip
def test_a_sign_of_a_list_that_stands_by_itself_is_the_one_wanted(text: str, bullet: str | None) -> None:
    """Not one within a number or word."""
    assert written_bullet(text) == bullet


@pytest.mark.parametrize(("text", "name"), [
    ("キーは station のJSONだけで返して", "station"), ("键名为city，不要说明文字。", "city"),
    ("ключ city или town", None), ("key city", None),
])  # fmt: skip
def test_the_only_latin_word_of_another_script_is_a_name(text: str, name: str | None) -> None:
    """It is no word of that language."""
    assert foreign_name(text, besides={"json"}) == name
