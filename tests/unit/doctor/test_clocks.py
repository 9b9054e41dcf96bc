"""This machine's clock against others'."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from serac_gateway.doctor.clocks import clock_finding, date_header_ahead_s
from serac_gateway.doctor.findings import Level

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ahead_s", "level"),
    [(0.2, Level.OK), (-4.0, Level.OK), (6.0, Level.WARN), (-59.0, Level.WARN), (3_600.0, Level.FAIL)],
)
def test_seconds_are_a_warning_and_a_minute_is_a_failure(ahead_s: float, level: Level) -> None:
    finding = clock_finding("the store", ahead_s)
    assert (finding.level, "the store" in finding.detail) == (level, True)


@pytest.mark.parametrize(
    ("value", "ahead_s"),
    [
        ("Tue, 01 Dec 2026 12:01:30 GMT", 90.0),
        ("Tue, 01 Dec 2026 11:00:00 -0000", -3600.0),
        ("noon", None),
        ("", None),
    ],
)
def test_a_date_header_is_compared_and_nonsense_is_none(value: str, ahead_s: float | None) -> None:
    assert date_header_ahead_s(value, now=NOW) == ahead_s
