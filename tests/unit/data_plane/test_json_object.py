"""The text of JSON mode: one object, whatever the model writes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serac_gateway.data_plane.upstream.json_object import JsonObjectText, json_object_pieces
from serac_gateway.models.language_models.base import Piece


def kept(text: str, parts: int = 1) -> str:
    object_text = JsonObjectText()
    size = max(1, len(text) // parts)
    text_out = "".join(object_text.feed(text[at : at + size]) for at in range(0, len(text), size))
    return text_out + object_text.closing()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "{}"),
        ("Paris", "{}"),
        ("[1]", "{}"),
        ('{"a": 1}\nQuestion: more?', '{"a": 1}'),
        ('{"a": "x', '{"a": "x"}'),
        ('{"a": "x\\u12', '{"a": "x"}'),
        ('{"a": "x\\q', '{"a": "x"}'),
        ('{"a": "x\ny', '{"a": "x"}'),
        ('{"Paris is the capital', '{"Paris is the capital": null}'),
        ('{"a"', '{"a": null}'),
        ('{"a":', '{"a":null}'),
        ('{"a": tru', '{"a": null}'),
        ('{"a": 12', '{"a": 12}'),
        ('{"a": 12.', '{"a": null}'),
        ('{"a": 12,', '{"a": 12}'),
        ('{"a": [1, ', '{"a": [1]}'),
        ('{"a": [1, [', '{"a": [1, []]}'),
        ('{"a": [1, tr', '{"a": [1, null]}'),
        ('{"a": [1, }', '{"a": [1]}'),
        ('{"a": 01, "b": 2}', '{"a": null}'),
        ('{"a": {"b": [true, false, null', '{"a": {"b": [true, false, null]}}'),
        ('{"a": 1 "b"', '{"a": 1 }'),
    ],
)
def test_what_is_no_object_is_cut_and_closed(text: str, expected: str) -> None:
    assert kept(text) == expected
    json.loads(expected)


json_objects = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@given(json_objects, st.booleans(), st.integers(1, 9), st.text(max_size=5))
def test_an_object_is_kept_as_it_is_and_nothing_after_it(
    value: dict, ascii_only: bool, parts: int, rest: str
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=1 if parts > 4 else None)
    assert kept(text + rest, parts) == text


@given(json_objects, st.data())
def test_an_object_cut_anywhere_or_spoilt_by_a_character_is_still_one(
    value: dict, data: st.DataObject
) -> None:
    text = json.dumps(value)
    at = data.draw(st.integers(0, len(text)))
    assert isinstance(json.loads(kept(text[:at], parts=3)), dict)
    spoilt = text[:at] + data.draw(st.characters()) + text[at:]
    assert isinstance(json.loads(kept(spoilt, parts=3)), dict)


@given(st.text(alphabet='{}[]",:\\u01e.-truefalsn \n', max_size=40))
def test_any_text_gives_an_object(text: str) -> None:
    assert isinstance(json.loads(kept(text)), dict)
    assert isinstance(json.loads(kept('{"' + text)), dict)


def test_deep_nesting_ends_before_readers_do() -> None:
    assert isinstance(json.loads(kept('{"a":' + "[" * 5_000)), dict)


def piece(text: str, finish_reason: str | None = None) -> Piece:
    return Piece(text=text, tokens=1, finish_reason=finish_reason)


def test_pieces_end_with_the_object_and_count_all_tokens() -> None:
    pieces = list(
        json_object_pieces(
            iter([piece("a"), piece('": 1'), piece("2"), piece("}"), piece("\nQuestion:")]), beginning='{"'
        )
    )
    assert "".join(part.text for part in pieces) == '{"a": 12}'
    assert sum(part.tokens for part in pieces) == 4
    assert [part.finish_reason for part in pieces] == [None, None, "stop"]


@pytest.mark.parametrize("reason", ["length", "stop"])
def test_an_answer_that_ends_within_the_object_is_closed_and_keeps_its_reason(reason: str) -> None:
    pieces = list(json_object_pieces(iter([piece('a": [1, 2'), piece(", ", reason)]), beginning='{"'))
    assert "".join(part.text for part in pieces) == '{"a": [1, 2]}'
    assert pieces[-1].finish_reason == reason
