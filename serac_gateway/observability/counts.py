"""Counts of what the gateway did, since it started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import msgspec

from serac_gateway.observability.request_record import FinishedRequest
from serac_gateway.routing.router import Route


class RouteCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests went one way for one reason."""

    route: str
    reason: str
    count: int


class EditCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests an edit governed."""

    namespace: str
    edit_id: str
    applied: int
    withheld: int
    """As a shadow, or outside a canary's share."""


_MAX_NAMESPACES = 10_000
"""Counted apart. Whoever may use every namespace can name as many as they like."""
_MAX_EDITS = 100_000
"""Counted by edit; further ones are not."""
_EDITS_SHOWN = 1_000


class RouteCounts:
    """Requests by namespace, route and reason. Belongs to the event loop."""

    def __init__(self) -> None:
        self._counts: dict[str | None, Counter[tuple[str, str]]] = {}
        self._of_edits: Counter[tuple[str, str, bool]] = Counter()
        self.in_flight = 0
        """Requests that are being answered now."""
        self.in_flight_of_workers: dict[str, int] = {}
        """Likewise in worker processes, by their names, as they reported last."""
        self.clients_left = 0
        """Requests whose client left before the answer was complete (nginx calls it 499)."""

    def add(self, route: str, reason: str, namespace: str | None) -> None:
        """Count one request; None: it was refused before its namespace was known."""
        if namespace not in self._counts and len(self._counts) >= _MAX_NAMESPACES:
            namespace = None
        self._counts.setdefault(namespace, Counter())[route, reason] += 1

    def add_edit(self, namespace: str, edit_id: str, *, applied: bool) -> None:
        """Count one request that the edit governed, or would have governed if it were live."""
        key = (namespace, edit_id, applied)
        if key in self._of_edits or len(self._of_edits) < _MAX_EDITS:
            self._of_edits[key] += 1

    def edits(self, namespaces: Collection[str] | None = None) -> list[EditCount]:
        """The most frequent edits, of all namespaces or of `namespaces`: at most 1,000."""
        known = Counter[tuple[str, str]]()
        for (namespace, edit_id, _), count in self._of_edits.items():
            if namespaces is None or namespace in namespaces:
                known[namespace, edit_id] += count
        return [
            EditCount(
                namespace=namespace,
                edit_id=edit_id,
                applied=self._of_edits[namespace, edit_id, True],
                withheld=self._of_edits[namespace, edit_id, False],
            )
            for (namespace, edit_id), _ in known.most_common(_EDITS_SHOWN)
        ]

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


class RequestCounter:
    """An observer of the data plane's that adds to `counts`."""

    def __init__(self, counts: RouteCounts) -> None:
        self._counts = counts

    def add(self, request: FinishedRequest) -> None:
        """Count a request that has ended."""
        self._counts.add(request.route, request.reason, request.namespace)
        self._counts.clients_left += request.client_left
        decision = request.decision
        if request.namespace is None or decision is None:
            return
        if decision.withheld is not None:
            self._counts.add_edit(request.namespace, decision.withheld.id, applied=False)
        if request.route in (Route.COUNTERFACTUAL, Route.IN_CONTEXT):
            for edit in decision.context_edits or ((decision.edit,) if decision.edit else ()):
                self._counts.add_edit(request.namespace, edit.id, applied=True)


class AnswerCounts:
    """What is counted of answers. Belongs to the event loop."""

    def __init__(self) -> None:
        self.open = 0
        """Answers that are being generated or wait for it."""
        self.tokens = 0
        """All that were generated."""


class DecisionCounts:
    """What is counted of decisions. Belongs to the event loop."""

    def __init__(self) -> None:
        self.open = 0
        """Decisions that are being made or wait for a thread."""
