"""What a check says: one line with its level and, unless all is well, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class Level(StrEnum):
    """How bad it is, from good to bad."""

    OK = "OK"
    WARN = "WARN"
    """It works, and something is at risk or will end soon."""
    FAIL = "FAIL"
    """It does not work, or does not keep what it must."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a diagnosis."""

    check: str
    """What was looked at, in one or two words."""
    level: Level
    detail: str
    remedy: str | None = None
    """What to do; None if nothing has to be done."""


def fine(check: str, detail: str) -> Finding:
    """A finding that asks for nothing."""
    return Finding(check=check, level=Level.OK, detail=detail)


def warning(check: str, detail: str, remedy: str) -> Finding:
    """A finding of what is at risk."""
    return Finding(check=check, level=Level.WARN, detail=detail, remedy=remedy)


def failure(check: str, detail: str, remedy: str) -> Finding:
    """A finding of what does not work."""
    return Finding(check=check, level=Level.FAIL, detail=detail, remedy=remedy)


def exit_code(findings: Iterable[Finding]) -> int:
    """0: all is well; 1: something is at risk; 2: something does not work."""
    levels = list(Level)
    return max((levels.index(finding.level) for finding in findings), default=0)
