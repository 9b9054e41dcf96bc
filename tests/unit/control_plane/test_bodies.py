"""Limits and allowed values, read from msgspec."""

from __future__ import annotations

import pytest

from serac_gateway.control_plane.http.bodies import allowed_values, limit_in
from serac_gateway.domain.edits import DecidedState, EditDraft


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
