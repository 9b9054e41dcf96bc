"""Counts since the process started: requests by route, reason and edit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import msgspec

from serac_gateway.observability.request_record import FinishedRequest


class RouteCount(msgspec.Struct, frozen=True, kw_only=True):
    """The number of requests with one route and one reason."""

    route: str
    reason: str
    count: int


class EditCount(msgspec.Struct, frozen=True, kw_only=True):
    """The number of requests in an edit's scope."""

    namespace: str
    edit_id: str
    applied: int
    withheld: int
    """Not applied: the edit is a shadow, or a canary whose share leaves the user out."""


_MAX_NAMESPACES = 10_000
"""Namespaces with counts of their own. A client that may use every namespace can invent any number."""
_MAX_EDITS = 100_000
"""Edits with counts of their own; requests of further ones are not counted by edit."""
_MAX_EDITS_LISTED = 1_000


class RouteCounts:
    """Requests by namespace, route and reason. Belongs to the event loop."""

    def __init__(self) -> None:
        self._counts: dict[str | None, Counter[tuple[str, str]]] = {}
        self._of_edits: Counter[tuple[str, str, bool]] = Counter()
        self.in_flight = 0
        """Requests that have begun and not ended in this process."""
        self.in_flight_of_workers: dict[str, int] = {}
        """The same in worker processes, by worker name, as each reported last."""
        self.clients_left = 0
        """Requests whose client left before the answer was complete (nginx calls it 499)."""

    def add(self, route: str, reason: str, namespace: str | None) -> None:
        """Count one request; `namespace` None: it was refused before its namespace was known."""
        if namespace not in self._counts and len(self._counts) >= _MAX_NAMESPACES:
            namespace = None
        counts = self._counts.get(namespace)
        if counts is None:
            counts = self._counts[namespace] = Counter()
        counts[route, reason] += 1

    def add_edit(self, namespace: str, edit_id: str, *, applied: bool) -> None:
        """Count one request in the edit's scope: the edit was applied, or withheld because it is on trial."""
        key = (namespace, edit_id, applied)
        if key in self._of_edits or len(self._of_edits) < _MAX_EDITS:
            self._of_edits[key] += 1

    def edits(self, namespaces: Collection[str] | None = None) -> list[EditCount]:
        """The edits with the most requests, of all namespaces or of `namespaces`; at most 1,000."""
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
            for (namespace, edit_id), _ in known.most_common(_MAX_EDITS_LISTED)
        ]

    def snapshot(self, namespaces: Collection[str] | None = None) -> list[RouteCount]:
        """The counts of all namespaces together, or of `namespaces`; most first."""
        total: Counter[tuple[str, str]] = Counter()
        for namespace, counts in self._counts.items():
            if namespaces is None or namespace in namespaces:
                total.update(counts)
        return [
            RouteCount(route=route, reason=reason, count=count)
            for (route, reason), count in total.most_common()
        ]


class RequestCounter:
    """Counts the requests that the data plane has finished."""

    def __init__(self, counts: RouteCounts) -> None:
        self._counts = counts

    def add(self, request: FinishedRequest) -> None:
        """Count a request that has ended."""
        self.add_of_other_gateway(request)
        self._counts.clients_left += request.client_left

    def add_of_other_gateway(self, request: FinishedRequest) -> None:
        """Count a request that another gateway has served, by its route and its edits alone."""
        self._counts.add(request.route, request.reason, request.namespace)
        decision = request.decision
        if request.namespace is None or decision is None:
            return
        if decision.withheld is not None:
            self._counts.add_edit(request.namespace, decision.withheld.id, applied=False)
        for edit in request.applied_edits:
            self._counts.add_edit(request.namespace, edit.id, applied=True)


class EngineCounts:
    """The work that the models do now, and the tokens generated so far. Belongs to the event loop."""

    def __init__(self) -> None:
        self.open_decisions = 0
        """Decisions that are being made or wait for a thread."""
        self.open_answers = 0
        """Answers that are being generated or wait for a thread."""
        self.answer_tokens = 0
        """All tokens that the counterfactual model generated."""
