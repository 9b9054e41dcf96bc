"""The account of the memory that request bodies take up."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from serac_gateway.domain.body_budget import EXTENSION, FREE_BYTES, BodyBudget, HeldBody, held_body
from serac_gateway.errors import BodyMemoryError

LIMIT = 10 * FREE_BYTES


def test_the_largest_body_that_is_still_arriving_makes_room() -> None:
    budget, refused = BodyBudget(LIMIT), []
    bodies = {
        name: budget.open(lambda name=name: refused.append(name)) for name in ("small", "large", "whole")
    }
    bodies["small"].add(2 * FREE_BYTES)
    bodies["large"].add(3 * FREE_BYTES)
    bodies["whole"].add(5 * FREE_BYTES)
    bodies["whole"].is_arriving = False
    assert budget.total_bytes == LIMIT
    newest = budget.open(lambda: refused.append("newest"))
    newest.add(2 * FREE_BYTES)
    assert refused == ["large"]
    assert budget.total_bytes == LIMIT - FREE_BYTES
    with pytest.raises(BodyMemoryError, match=r"raise server\.max_body_memory_bytes"):
        bodies["large"].add(1)


def test_a_body_that_is_the_largest_itself_is_refused() -> None:
    budget, refused = BodyBudget(LIMIT), []
    other = budget.open(lambda: refused.append("other"))
    other.add(2 * FREE_BYTES)
    body = budget.open(lambda: refused.append("body"))
    with pytest.raises(BodyMemoryError):
        body.add(LIMIT)
    assert refused == []
    assert budget.total_bytes == other.size


def test_small_bodies_are_served_however_full_it_is() -> None:
    budget = BodyBudget(LIMIT)
    whole = budget.open()
    whole.add(LIMIT)
    whole.is_arriving = False
    small = [budget.open() for _ in range(100)]
    for body in small:
        body.add(FREE_BYTES)
    with pytest.raises(BodyMemoryError):
        small[0].add(1)
    assert budget.total_bytes == LIMIT


def test_what_has_gone_on_or_ended_is_counted_no_more() -> None:
    budget = BodyBudget(LIMIT)
    body = budget.open()
    body.add(5 * FREE_BYTES)
    body.remove(FREE_BYTES)
    assert budget.total_bytes == 4 * FREE_BYTES
    body.release()
    body.release()
    assert budget.total_bytes == body.size == 0


def test_without_a_server_there_is_no_bound() -> None:
    held_body({"type": "http"}).add(10**12)
    held_body({"type": "http", "extensions": None}).add(10**12)
    body = BodyBudget(1).open()
    assert held_body({"extensions": {EXTENSION: body}}) is body


@given(
    st.lists(
        st.tuples(
            st.integers(0, 4), st.sampled_from(["add", "remove", "whole", "end"]), st.integers(0, LIMIT // 2)
        ),
        max_size=60,
    )
)
def test_the_total_is_the_sum_and_never_above_the_limit(steps: list[tuple[int, str, int]]) -> None:
    budget = BodyBudget(LIMIT)
    bodies: list[HeldBody] = [budget.open() for _ in range(5)]
    for place, step, size in steps:
        body = bodies[place]
        if step == "add":
            try:
                body.add(size)
            except BodyMemoryError:
                assert body.size == 0
        elif step == "remove":
            body.remove(size)
        elif step == "whole":
            body.is_arriving = False
        else:
            body.release()
            bodies[place] = budget.open()
        assert budget.total_bytes == sum(body.size for body in bodies if body.size > FREE_BYTES)
        assert budget.total_bytes <= LIMIT
