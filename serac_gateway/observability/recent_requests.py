"""The latest requests that were decided on, kept in memory so that feedback can name one by its id."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from serac_gateway.domain.feedback import RememberedRequest
from serac_gateway.observability.request_record import FinishedRequest
from serac_gateway.routing.router import RouteDecision
from serac_gateway.stores.traffic_recorder import TrafficRecorder


class _Kept(NamedTuple):
    request: RememberedRequest
    key_id: str | None
    """The API key that sent it."""
    upstream_request_id: str | None


class RecentRequests:
    """The latest requests by namespace and id; an id that a client uses again names its last request.

    Belongs to the event loop. The text of a query is kept, redacted, only where the namespace's traffic is
    recorded. The upstream's id of a request names it too: it is the x-request-id that the client sees.
    """

    def __init__(self, *, limit: int) -> None:
        """Keep at most `limit` requests."""
        self._limit = limit
        self._requests: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._by_upstream_id: dict[tuple[str, str], tuple[str, str]] = {}
        """The key in `_requests`, by namespace and the upstream's id."""

    def observer(self, traffic: TrafficRecorder) -> Callable[[FinishedRequest], None]:
        """An observer for the data plane; it keeps a query's text where `traffic` records it."""
        return lambda request: self._add(request, traffic)

    def _add(self, request: FinishedRequest, traffic: TrafficRecorder) -> None:
        """Keep a request that was decided on, and drop the oldest beyond the limit."""
        if request.decision is None or request.namespace is None:
            return
        key = (request.namespace, request.request_id)
        if (before := self._requests.pop(key, None)) is not None:
            self._forget_upstream_id(request.namespace, before)
        remembered = _remembered(request, request.decision, request.namespace, traffic)
        self._requests[key] = _Kept(remembered, request.key_id, request.upstream_request_id)
        if request.upstream_request_id is not None:
            self._by_upstream_id[request.namespace, request.upstream_request_id] = key
        if len(self._requests) > self._limit:
            (namespace, _), oldest = self._requests.popitem(last=False)
            self._forget_upstream_id(namespace, oldest)

    def get(
        self, namespace: str, request_id: str, *, only_of_key: str | None = None
    ) -> RememberedRequest | None:
        """The last request of that id, ours or the upstream's; None if it is not kept (any more).

        With `only_of_key`, only a request that this API key sent.
        """
        kept = self._requests.get((namespace, request_id))
        if kept is None and (key := self._by_upstream_id.get((namespace, request_id))) is not None:
            kept = self._requests[key]
        if kept is None or (only_of_key is not None and kept.key_id != only_of_key):
            return None
        return kept.request

    def all(self, namespace: str) -> list[RememberedRequest]:
        """Those of the namespace that are kept, the oldest first."""
        return [kept.request for (name, _), kept in self._requests.items() if name == namespace]

    def _forget_upstream_id(self, namespace: str, kept: _Kept) -> None:
        upstream_id = kept.upstream_request_id
        if upstream_id is None:
            return
        key = (namespace, upstream_id)
        if self._by_upstream_id.get(key) == (namespace, kept.request.request_id):
            del self._by_upstream_id[key]


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
        instructions="" if query is None else query.instructions,
        trial=request.trial,
    )
