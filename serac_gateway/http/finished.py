"""What is known of a request of /v1 once it has ended: for counts, the log and the memory of decisions."""

from __future__ import annotations

import time

import msgspec

from serac_gateway.conversation import Query
from serac_gateway.http.exchange import Exchange
from serac_gateway.http.verdict import UNDECIDED
from serac_gateway.routing import Route, RouteDecision


class FinishedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that has ended, whichever way."""

    request_id: str
    method: str
    path: str
    """Below /v1, as the client wrote it, without the query string."""
    key_id: str | None
    namespace: str | None
    """None: it was refused before its namespace was known."""
    route: Route
    reason: str
    decision: RouteDecision | None
    query: Query | None
    """The text that was decided on. It is content: nothing may log or keep it that was not told to."""
    status: int | None
    """None: no response was begun."""
    client_left: bool
    decide_s: float | None
    """From the whole request to the decision, waiting included; None if none was needed."""
    overhead_s: float | None
    """In the gateway: before the upstream was asked, but for waiting for the client's body, and from the
    upstream's headers to ours. None: the upstream did not answer."""
    upstream_s: float | None
    """From asking the upstream to its headers."""
    first_byte_s: float | None
    """From the request's first line to the first byte of the response's body."""
    upstream_error: str | None
    """Its kind, if the upstream failed or broke off."""
    streamed: bool
    """Whether the response is an event stream."""
    total_s: float
    bytes_in: int
    bytes_out: int


class SoFar:
    """What has been found out about a request that is being served."""

    __slots__ = ("key_id", "namespace", "verdict")

    def __init__(self) -> None:
        self.verdict = UNDECIDED
        self.namespace: str | None = None
        self.key_id: str | None = None


def finished(exchange: Exchange, so_far: SoFar) -> FinishedRequest:
    """The record of a request that ends now."""
    verdict, marks = so_far.verdict, exchange.marks
    left_undecided = exchange.client_left and verdict is UNDECIDED
    overhead_s = upstream_s = None
    if marks.upstream_asked and marks.upstream_answered and marks.response_begun:
        upstream_s = marks.upstream_answered - marks.upstream_asked
        before_s = marks.upstream_asked - marks.begun - marks.body_awaited_s
        overhead_s = max(0.0, before_s) + marks.response_begun - marks.upstream_answered
    error = exchange.upstream_error
    return FinishedRequest(
        request_id=exchange.request_id.decode(),
        method=exchange.method,
        path=exchange.scope["raw_path"].decode("latin-1").removeprefix("/v1"),
        key_id=so_far.key_id,
        namespace=so_far.namespace,
        route=verdict.route,
        reason="client left" if left_undecided else verdict.reason,
        decision=verdict.decision,
        query=verdict.query,
        status=exchange.status,
        client_left=exchange.client_left,
        decide_s=None if verdict.decide_ms is None else verdict.decide_ms / 1_000,
        overhead_s=overhead_s,
        upstream_s=upstream_s,
        first_byte_s=None if marks.first_byte is None else marks.first_byte - marks.begun,
        upstream_error=None if error is None else str(error.details.get("kind", "other")),
        streamed=exchange.streams,
        total_s=time.perf_counter() - marks.begun,
        bytes_in=exchange.bytes_in,
        bytes_out=exchange.bytes_out,
    )
