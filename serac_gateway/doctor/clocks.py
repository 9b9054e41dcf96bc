"""This machine's clock against others'."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from serac_gateway.doctor.findings import Finding, failure, fine, warning

_WARN_S = 5
"""A Date header has whole seconds, and the network takes its time."""
_FAIL_S = 60
"""Validity windows, tokens and signatures of others are refused by then."""


def clock_finding(other: str, ahead_s: float) -> Finding:
    """`ahead_s`: by how many seconds the clock of `other` is ahead of this machine's."""
    relation = "ahead of" if ahead_s > 0 else "behind"
    detail = f"{other}'s is {abs(ahead_s):.1f} s {relation} this machine's"
    remedy = "have NTP set both clocks: edits' windows, expiries and the log's times depend on them"
    if abs(ahead_s) > _FAIL_S:
        return failure("clock", detail, remedy)
    if abs(ahead_s) > _WARN_S:
        return warning("clock", detail, remedy)
    return fine("clock", detail)


def date_header_ahead_s(value: str, *, now: datetime) -> float | None:
    """How far a Date header is ahead of `now`; None if it is no date."""
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - now).total_seconds()
