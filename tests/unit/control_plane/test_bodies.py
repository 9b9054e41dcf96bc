"""Limits and allowed values, read from msgspec."""

from __future__ import annotations

import pytest

from serac_gateway.control_plane.http.bodies import (
    MAX_BODY_VALUES,
    allowed_values,
    decode_body,
    limit_in,
)
from serac_gateway.domain.edits import DecidedState, EditDraft
from serac_gateway.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("message", "limit"),
    [("Expected `int` <= 1000", 1000), ("Expected `array` of length <= 256", 256), ("Expected `str`", None)],
)
def test_the_limit_is_read_from_a_msgspec_message(message: str, limit: int | None) -> None:
    assert limit_in(message) == limit


def test_the_values_of_an_enum_are_found_also_in_a_union_and_in_a_record() -> None:
    assert allowed_values(DecidedState) == ["live", "shadow", "canary"]
    assert allowed_values(DecidedState | None) == ["live", "shadow", "canary"]
    assert allowed_values(EditDraft, "kind") == ["fact", "suppression", "instruction"]


def test_anything_else_has_no_allowed_values() -> None:
    assert (
        allowed_values(int) == allowed_values(EditDraft, "prompt") == allowed_values(EditDraft, "nope") == []
    )


@pytest.mark.parametrize("values", [b"[]", b"{}", b"1", b'""'])
def test_a_body_of_very_many_values_is_refused_before_it_is_decoded(values: bytes) -> None:
    """To decode it would take seconds, in which the process answers nobody."""
    body = b'{"prompt":[' + b",".join([values] * (MAX_BODY_VALUES + 1)) + b"]}"
    with pytest.raises(InvalidRequestError, match="commas and opening brackets; the limit is 200,000"):
        decode_body(body, EditDraft)


def test_a_long_name_of_an_unknown_field_is_cut_in_the_error() -> None:
    name = " - at `$x`" * 100_000 + "\n"
    with pytest.raises(InvalidRequestError) as caught:
        decode_body(b'{"%s":1}' % name.replace("\n", "\\n").encode(), EditDraft)
    assert len(caught.value.message) < 2_000
