"""The latest requests that were decided on, kept in memory so that feedback can name one by its id."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime

from serac_gateway.domain.feedback import RememberedRequest
from serac_gateway.observability.request_record import FinishedRequest
from serac_gateway.routing.router import RouteDecision
from serac_gateway.stores.traffic_recorder import TrafficRecorder


class RecentRequests:
    """The latest requests by namespace and id; an id that a client uses again names its last request.

    Belongs to the event loop. The text of a query is kept, redacted, only where the namespace's traffic is
    recorded.
    """

    def __init__(self, *, limit: int) -> None:
        """Keep at most `limit` requests."""
        self._limit = limit
        self._requests: OrderedDict[tuple[str, str], RememberedRequest] = OrderedDict()

    def observer(self, traffic: TrafficRecorder) -> Callable[[FinishedRequest], None]:
        """An observer for the data plane; it keeps a query's text where `traffic` records it."""
        return lambda request: self._add(request, traffic)

    def _add(self, request: FinishedRequest, traffic: TrafficRecorder) -> None:
        """Keep a request that was decided on, and drop the oldest beyond the limit."""
        if request.decision is None or request.namespace is None:
            return
        key = (request.namespace, request.request_id)
        self._requests.pop(key, None)
        self._requests[key] = _remembered(request, request.decision, request.namespace, traffic)
        if len(self._requests) > self._limit:
            self._requests.popitem(last=False)

    def get(self, namespace: str, request_id: str) -> RememberedRequest | None:
        """The last request of that id, None if it is not kept (any more)."""
        return self._requests.get((namespace, request_id))


def _remembered(
    request: FinishedRequest, decision: RouteDecision, namespace: str, traffic: TrafficRecorder
) -> RememberedRequest:
    """Nothing of an edit but its id and version: the content of a purged edit must not remain here."""
    edit = decision.scoped_edit
    query = None
    if request.query is not None and traffic.is_on(namespace):
        query = traffic.redacted(request.query)
    return RememberedRequest(
        request_id=request.request_id,
        at=datetime.now(UTC),
        route=request.route.value,
        reason=request.reason,
        edit_id=None if edit is None else edit.id,
        edit_version=None if edit is None else edit.version,
        nearest_edit_id=decision.candidates[0].edit.id if decision.candidates else None,
        scope_probability=decision.scope_probability,
        similarity=decision.similarity,
        query=None if query is None else query.text,
        context=() if query is None else query.context,
    )
