"""Counts of what the gateway did, since it started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import msgspec


class RouteCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests went one way for one reason."""

    route: str
    reason: str
    count: int


_MAX_NAMESPACES = 10_000
"""Counted apart. Whoever may use every namespace can name as many as they like."""


class RouteCounts:
    """Requests by namespace, route and reason. Belongs to the event loop."""

    def __init__(self) -> None:
        self._counts: dict[str | None, Counter[tuple[str, str]]] = {}
        self.in_flight = 0
        """Requests that are being answered now."""
        self.clients_left = 0
        """Requests whose client left before the answer was complete (nginx calls it 499)."""

    def add(self, route: str, reason: str, namespace: str | None) -> None:
        """Count one request; None: it was refused before its namespace was known."""
        if namespace not in self._counts and len(self._counts) >= _MAX_NAMESPACES:
            namespace = None
        self._counts.setdefault(namespace, Counter())[route, reason] += 1

    def snapshot(self, namespaces: Collection[str] | None = None) -> list[RouteCount]:
        """All counts, or those of `namespaces`, the most frequent first."""
        total: Counter[tuple[str, str]] = Counter()
        for namespace, counts in self._counts.items():
            if namespaces is None or namespace in namespaces:
                total.update(counts)
        return [
            RouteCount(route=route, reason=reason, count=count)
            for (route, reason), count in total.most_common()
        ]
