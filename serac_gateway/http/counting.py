"""Counts requests that have ended by route and reason, and by the edits that governed them."""

from __future__ import annotations

from serac_gateway.http.finished import FinishedRequest
from serac_gateway.metrics import RouteCounts
from serac_gateway.routing.router import Route


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
