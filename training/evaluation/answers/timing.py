"""Which routes the probes of a run took, and how long their replies took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from serac_gateway.routing.router import Route
from training.evaluation.answers.outcomes import ProbeAnswer
from training.evaluation.rates import Rate, median, percentile, rate

SHORT_ANSWER_TOKENS = 16
ANSWERED_HERE = (Route.COUNTERFACTUAL, Route.IN_CONTEXT)
"""Routes whose replies an edit shapes."""


class RouteShare(msgspec.Struct, frozen=True, kw_only=True):
    """How many probes of a group took a route."""

    group: str
    route: str
    share: Rate


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """How long replies of one route took, in milliseconds; NaN where nothing was timed."""

    replies: str
    count: int
    first_token_median_ms: float
    first_token_p95_ms: float
    total_median_ms: float
    total_p95_ms: float
    tokens_median: float


def routes_taken(probes: Sequence[ProbeAnswer]) -> tuple[RouteShare, ...]:
    """Shares of routes in each group of probes, by name."""
    groups: dict[str, list[str]] = defaultdict(list)
    for probe in probes:
        name = "entailed" if probe.entailed else "must fire" if probe.in_scope else "must not fire"
        groups[name].append(probe.route)
    return tuple(
        RouteShare(group=group, route=route, share=rate([other == route for other in taken]))
        for group, taken in sorted(groups.items())
        for route in sorted(set(taken))
    )


def times_by_route(probes: Sequence[ProbeAnswer]) -> tuple[Times, ...]:
    """Times of every route, and of short answers alone: their number is what the time depends on."""
    by_route: dict[str, list[ProbeAnswer]] = defaultdict(list)
    for probe in probes:
        by_route[probe.route].append(probe)
        if probe.route in ANSWERED_HERE and 0 < (probe.tokens or 0) <= SHORT_ANSWER_TOKENS:
            by_route[f"{probe.route}, up to {SHORT_ANSWER_TOKENS} tokens"].append(probe)
    return tuple(
        Times(
            replies=name,
            count=len(replies),
            first_token_median_ms=median(_timed(replies)),
            first_token_p95_ms=percentile(_timed(replies), 95),
            total_median_ms=median([probe.total_ms for probe in replies]),
            total_p95_ms=percentile([probe.total_ms for probe in replies], 95),
            tokens_median=median([float(probe.tokens) for probe in replies if probe.tokens is not None]),
        )
        for name, replies in sorted(by_route.items())
    )


def _timed(probes: Sequence[ProbeAnswer]) -> list[float]:
    return [probe.first_token_ms for probe in probes if probe.first_token_ms is not None]
