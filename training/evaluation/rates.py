"""Shares, means and their intervals, which every run reports; and how reports print them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

T = TypeVar("T")

_Z95 = 1.959964


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """A share with its 95 % interval."""

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share; NaN for nothing out of nothing."""
        return self.count / self.total if self.total else math.nan


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A value with its 95 % bootstrap interval over cases."""

    value: float
    low: float
    high: float


class KindRate(msgspec.Struct, frozen=True, kw_only=True):
    """The share of right outcomes among the probes of one kind."""

    kind: str
    in_scope: bool
    right: Rate
    """See `is_right` of the run's summary."""


def rate(outcomes: Sequence[bool]) -> Rate:
    """The share of True, with the Wilson interval (E. B. Wilson, JASA 22, 1927)."""
    total = len(outcomes)
    count = sum(outcomes)
    if total == 0:
        return Rate(count=0, total=0, low=math.nan, high=math.nan)
    share = count / total
    denominator = 1 + _Z95**2 / total
    centre = (share + _Z95**2 / (2 * total)) / denominator
    half = _Z95 * math.sqrt(share * (1 - share) / total + _Z95**2 / (4 * total**2)) / denominator
    low = 0.0 if count == 0 else centre - half
    high = 1.0 if count == total else centre + half
    return Rate(count=count, total=total, low=low, high=high)


def bootstrap_interval(
    cases: Sequence[T], statistic: Callable[[Sequence[T]], float], *, seed: int = 0, rounds: int = 1_000
) -> tuple[float, float]:
    """The 95 % percentile interval of `statistic` over cases drawn anew (Efron, Ann. Stat. 7, 1979).

    Cases are drawn, not probes: probes of one case are not independent. Rounds without a value (NaN) are left
    out; no cases give NaN.
    """
    rng = random.Random(seed)
    values = sorted(
        value
        for _ in range(rounds if cases else 0)
        if not math.isnan(value := statistic(rng.choices(cases, k=len(cases))))
    )
    if not values:
        return math.nan, math.nan
    return values[int(0.025 * (len(values) - 1))], values[math.ceil(0.975 * (len(values) - 1))]


def median(values: Sequence[float]) -> float:
    """The middle value; NaN without data."""
    return percentile(values, 50)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile; NaN without data."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(percent / 100 * len(ordered)) - 1))]


def rate_text(share: Rate) -> str:
    """A rate as the reports print it: value, interval, counts."""
    if not share.total:
        return "–"
    return f"{share.value:.4f} [{share.low:.4f}, {share.high:.4f}] ({share.count:,}/{share.total:,})"


def short_rate_text(share: Rate) -> str:
    """A rate as a table of several runs prints it: value and number of probes."""
    return f"{share.value:.4f} ({share.total:,})" if share.total else "–"
