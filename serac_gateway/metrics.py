"""Counts of what the gateway did, since it started."""

from __future__ import annotations

from collections import Counter

import msgspec


class RouteCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests went one way for one reason."""

    route: str
    reason: str
    count: int


class RouteCounts:
    """Requests by route and reason. Belongs to the event loop."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self.in_flight = 0
        """Requests that are being answered now."""
        self.clients_left = 0
        """Requests whose client left before the answer was complete (nginx calls it 499)."""

    def add(self, route: str, reason: str) -> None:
        """Count one request."""
        self._counts[route, reason] += 1

    def snapshot(self) -> list[RouteCount]:
        """All counts, the most frequent first."""
        return [
            RouteCount(route=route, reason=reason, count=count)
            for (route, reason), count in self._counts.most_common()
        ]
