"""When an edit is in force, drawn to scale and within the line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from serac_gateway.console.timelines import timeline

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=100)


def version(number: int, day: float, state: str = "live", **fields: str) -> dict[str, Any]:
    made = START + timedelta(days=day)
    return {"version": number, "created_at": made.isoformat(), "state": state, **fields}


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def test_a_version_lasts_until_the_next_and_a_retired_one_is_in_force_never() -> None:
    """The last goes on; the present has its place."""
    line = timeline([version(1, 0), version(2, 20, "retired"), version(3, 50, "shadow")], NOW)
    assert [(period.version, period.begins, period.ends) for period in line.periods] == [
        (1, day(0), day(20)),
        (3, day(50), None),
    ]
    assert line.begins == day(0)
    assert line.ends == NOW + timedelta(days=5)
    assert line.periods[0].x == 0
    assert line.periods[0].width == round(1000 * 20 / 105, 1)
    assert line.periods[1].x + line.periods[1].width == 1000
    assert line.now_x == round(1000 * 100 / 105, 1)


def test_a_window_in_the_future_and_a_day_of_review_are_on_the_line() -> None:
    """Also a window that was over before the version was made: it is none."""
    window = {"valid_from": day(200).isoformat(), "valid_until": day(300).isoformat()}
    line = timeline([version(1, 0, **window, review_by="2026-12-01")], NOW)
    assert [(period.begins, period.ends) for period in line.periods] == [(day(200), day(300))]
    assert line.review_x is not None
    assert line.now_x < line.periods[0].x < line.review_x < 1000
    assert timeline([version(1, 50, valid_until=day(20).isoformat())], NOW).periods == ()


def test_the_ends_of_the_calendar_have_a_place() -> None:
    """A window that begins with the year 1 and ends with the year 9999."""
    window = {"valid_from": "0001-01-01T00:00:00+00:00", "valid_until": "9999-12-31T23:59:59+00:00"}
    line = timeline([version(1, 0, **window, review_by="9999-12-31")], NOW)
    assert line.periods[0].x + line.periods[0].width <= 1002
