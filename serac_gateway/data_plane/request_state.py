"""What is known of a request of /v1 once it has ended: for counts, the log and the memory of decisions."""

from __future__ import annotations

import time

from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.plan import UNDECIDED
from serac_gateway.data_plane.speculation import SpeculativeRequest
from serac_gateway.observability.request_record import Failure, FinishedRequest


class SoFar:
    """What has been found out about a request that is being served."""

    __slots__ = ("ahead", "failure", "key_id", "key_store_failed", "namespace", "verdict")

    def __init__(self) -> None:
        self.verdict = UNDECIDED
        self.namespace: str | None = None
        self.key_id: str | None = None
        self.ahead: SpeculativeRequest | None = None
        """The request as it was sent to the upstream before the decision, if it was."""
        self.failure: Failure | None = None
        self.key_store_failed = False


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
        sent_ahead=None if so_far.ahead is None else so_far.ahead.outcome,
        failure=so_far.failure,
        key_store_failed=so_far.key_store_failed,
        model=verdict.model,
        answer_tokens=exchange.answer_tokens,
        streamed=exchange.streams,
        total_s=time.perf_counter() - marks.begun,
        bytes_in=exchange.bytes_in,
        bytes_out=exchange.bytes_out,
    )
