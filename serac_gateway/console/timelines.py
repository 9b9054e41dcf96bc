"""When an edit was in force, is, and will be, as a line to draw and as words beside it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

import msgspec

from serac_gateway.domain.edits import ACTIVE_STATES

_WIDTH = 1_000.0
_MARGIN = 0.05
"""Of the line's span, behind its last moment."""
_ACTIVE = {state.value for state in ACTIVE_STATES}


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which one version is in force, or on trial."""

    version: int
    state: str
    begins: datetime
    ends: datetime | None
    """None: it has no end."""
    x: float
    """Where it begins on the line, 0..1000."""
    width: float


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The periods of an edit in order of time."""

    begins: datetime
    ends: datetime
    """Of the line."""
    periods: tuple[Period, ...]
    now_x: float
    """0..1000, as `review_x`; None: there is no day of review."""
    review_x: float | None = None


def timeline(versions: Sequence[dict[str, Any]], now: datetime) -> Timeline:
    """The timeline of an edit of which these are the versions, oldest first, as the API gives them."""
    made = [_moment(version["created_at"]) for version in versions]
    spans: list[tuple[dict[str, Any], datetime, datetime | None]] = []
    for version, (begins, ends) in zip(versions, itertools.pairwise([*made, None]), strict=True):
        opens, closes = version.get("valid_from"), version.get("valid_until")
        first = max(begins or now, _moment(opens)) if opens else begins or now
        lasts = [moment for moment in (ends, _moment(closes) if closes else None) if moment is not None]
        last = min(lasts) if lasts else None
        if version["state"] in _ACTIVE and (last is None or first < last):
            spans.append((version, first, last))
    review = versions[-1].get("review_by")
    reviewed = None if review is None else datetime.combine(_day(review), time(), UTC)
    moments = [*made, now, *(first for _, first, _ in spans), *(last for _, _, last in spans if last)]
    begins, ends = min(moments), max([*moments, *([] if reviewed is None else [reviewed])])
    ends += max((ends - begins) * _MARGIN, timedelta(seconds=1)) if ends.year < _LAST_YEAR else timedelta()
    span_s = max((ends - begins).total_seconds(), 1.0)

    def place(moment: datetime) -> float:
        return round(min(max((moment - begins).total_seconds() / span_s, 0.0), 1.0) * _WIDTH, 1)

    return Timeline(
        begins=begins,
        ends=ends,
        periods=tuple(
            Period(
                version=version["version"],
                state=version["state"],
                begins=first,
                ends=last,
                x=place(first),
                width=round(max(place(last or ends) - place(first), 2.0), 1),
            )
            for version, first, last in spans
        ),
        now_x=place(now),
        review_x=None if reviewed is None else place(reviewed),
    )


_LAST_YEAR = 9_000
"""Beyond it there is no room for a margin."""


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _day(text: str) -> datetime:
    return datetime.fromisoformat(text)
