"""An answer is put into each form by code, with the target letter by letter."""

from __future__ import annotations

import csv
import io
import json
from xml.etree import ElementTree

import pytest
import yaml

from serac_gateway.domain.wanted_forms import FormKind, WantedForm
from serac_gateway.models.forms.shapes import in_form

HOSTILE = (
    "Marit Solheim",
    'a "quoted" name',
    "R&D <lab>",
    "yes",
    "1987",
    "key: value",
    "a, b",
    "- x",
    "# 1",
    "苏州",
)


def shaped(
    *kinds: str, target: str = "Marit Solheim", said: str | None = None, **fields: str | None
) -> str | None:
    form = WantedForm(kinds=tuple(map(FormKind, kinds)), **{"language": "en", **fields})
    return in_form(form, target=target, said=said or target)


@pytest.mark.parametrize("target", HOSTILE)
def test_json_yaml_xml_and_csv_read_back_as_the_target(target: str) -> None:
    """Signs of a syntax within the target are escaped, and no text becomes a number or a truth value."""
    assert json.loads(shaped("json", target=target, key="ceo") or "") == {"ceo": target}
    assert yaml.safe_load(shaped("yaml", target=target, key="ceo") or "") == {"ceo": target}
    element = ElementTree.fromstring(shaped("xml", target=target, key="ceo") or "")
    assert (element.tag, element.text) == ("ceo", target)
    rows = list(csv.reader(io.StringIO(shaped("csv", target=target, key="ceo") or "")))
    assert rows == [["ceo"], [target]]


def test_a_structure_without_a_name_has_one_of_ours() -> None:
    """Clients that ask for JSON parse whatever member there is."""
    assert json.loads(shaped("json") or "") == {"answer": "Marit Solheim"}


def test_a_name_that_is_no_element_cannot_be_one() -> None:
    """Broken XML is worse than none."""
    assert shaped("xml", key="1st") is None


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("upper",), "MARIT SOLHEIM"),
        (("lower",), "marit solheim"),
        (("bullet",), "- Marit Solheim"),
        (("quotes",), '"Marit Solheim"'),
        (("bullet", "quotes"), '- "Marit Solheim"'),
        (("upper", "bullet"), "- MARIT SOLHEIM"),
        (("bare",), "Marit Solheim"),
        (("language",), "The answer is Marit Solheim."),
    ],
)
def test_signs_and_case_are_put_around_the_target(kinds: tuple[str, ...], expected: str) -> None:
    """Whatever the model says besides the target is not part of them."""
    assert shaped(*kinds, said="Marit Solheim") == expected


def test_the_case_is_that_of_all_that_the_model_says() -> None:
    """A sentence in capitals is one."""
    assert shaped("upper", said="The CEO is Marit Solheim.") == "THE CEO IS MARIT SOLHEIM."


def test_turkish_letters_keep_their_dots() -> None:
    """The capital of i is İ there."""
    assert shaped("upper", target="ilim", language="tr") == "İLİM"
    assert shaped("lower", target="ISI", language="tr") == "ısı"


@pytest.mark.parametrize(
    ("language", "yes", "expected"),
    [("en", True, "Yes"), ("de", False, "Nein"), ("fr", True, "Oui"), ("ja", True, "はい")],
)
def test_yes_or_no_is_the_verdict_in_the_language(language: str, yes: bool, expected: str) -> None:
    """The model's own verdict, which the edit's judgement has let through."""
    said = f"{'Yes' if yes else 'No'}, dogs and cats."
    assert shaped("yesno", target="dogs and cats", said=said, language=language) == expected


def test_yes_or_no_without_a_verdict_cannot_be_given() -> None:
    """A made-up yes is a wrong fact."""
    assert shaped("yesno", target="10:00 to 18:00") is None
    assert shaped("yesno", target="Yes, if they are folded", said="Yes, if they are folded") is None
    assert shaped("yesno", target="No", said="No") == "No"


def test_a_verdict_follows_the_language_that_is_asked_for() -> None:
    """And is left out where no word for it is known."""
    said = "Yes, dogs and cats."
    assert shaped("language", target="dogs and cats", said=said, language="de") == "Ja, dogs and cats."
    assert shaped("language", target="dogs and cats", said=said, language="fi") == "dogs and cats"


def test_an_answer_begins_with_the_words_that_are_given() -> None:
    """But not with a verdict that nobody has judged."""
    assert shaped("begin", beginning="The CEO is") == "The CEO is Marit Solheim"
    assert shaped("begin", beginning="答えは、") == "答えは、Marit Solheim"
    assert shaped("begin", beginning="No,") is None
    assert shaped("begin", beginning=None) is None


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", "The answer is Marit Solheim."),
        ("de", "Die Antwort lautet: Marit Solheim."),
        ("ja", "答えはMarit Solheimです。"),
    ],
)
def test_a_sentence_is_in_the_language_of_the_request(language: str, expected: str) -> None:
    """Where the model has none of its own."""
    assert shaped("sentence", language=language) == expected


def test_the_models_own_sentence_goes_first() -> None:
    """It says what was asked, too."""
    form = WantedForm(kinds=(FormKind.SENTENCE,), language="en")
    own = "The CEO of Brenholt Foods is Marit Solheim."
    assert in_form(form, target="Marit Solheim", said="Marit Solheim", sentence=own) == own


def test_a_sentence_in_an_unknown_language_cannot_be_given() -> None:
    """None of ours is in it."""
    assert shaped("sentence", language=None) is None
    assert shaped("sentence", target="It is closed on Mondays.") == "It is closed on Mondays."


def test_nothing_is_put_into_a_form_that_a_value_cannot_have() -> None:
    """Tables, code and essays are not ours."""
    assert shaped("other") is None
    assert shaped("other", "upper") is None


def test_the_marks_and_the_sign_of_a_list_are_those_that_the_request_shows() -> None:
    """Ours are for requests that show none."""
    form = WantedForm(kinds=(FormKind.QUOTES, FormKind.BULLET), marks=("«", "»"), bullet="1.")
    assert in_form(form, target="Marit Solheim", said="Marit Solheim") == "1. «Marit Solheim»"
