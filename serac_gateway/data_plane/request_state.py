"""The facts gathered about a request of /v1 while it is served, and its record once it has ended."""

from __future__ import annotations

import logging
import time

import msgspec

from serac_gateway.data_plane.answer_text import answer_text
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.guard.guarded_relay import guarded_pieces
from serac_gateway.data_plane.guard.guards import ValueGuard
from serac_gateway.data_plane.guard.redaction import redacted
from serac_gateway.data_plane.plan import UNDECIDED
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.data_plane.speculation import SpeculativeRequest
from serac_gateway.models.language_models.base import Piece
from serac_gateway.observability.request_record import Failure, FinishedRequest
from serac_gateway.routing.guarded_values import GuardedValue

log = logging.getLogger(__name__)


class RequestState:
    """The facts about a running request that its response, its record and its cleanup need."""

    __slots__ = (
        "cut_by",
        "failure",
        "guard",
        "key_id",
        "key_store_failed",
        "namespace",
        "plan",
        "redacted_edits",
        "speculative",
    )  # fmt: skip

    def __init__(self) -> None:
        self.plan = UNDECIDED
        self.namespace: str | None = None
        self.key_id: str | None = None
        self.speculative: SpeculativeRequest | None = None
        """The request as it was sent to the upstream before the decision, if it was."""
        self.failure: Failure | None = None
        self.key_store_failed = False
        self.guard: ValueGuard | None = None
        """What the request and its reply must not hold; None: they pass as they are."""
        self.cut_by: GuardedValue | None = None
        """The value because of which the reply was cut."""
        self.redacted_edits: tuple[str, ...] = ()
        """The suppressions whose values were taken out of the request."""

    @property
    def reply_guard(self) -> ValueGuard | None:
        """What the upstream's reply is watched for; None: it passes as it is."""
        return self.guard if self.guard is not None and self.guard.watches else None

    async def without_values(self, body: object) -> bytes | None:
        """The body for the upstream without the values kept back; None: it has none, or is not read."""
        if self.guard is None or not self.guard.redacts or not isinstance(body, RequestBody):
            return None
        without = await redacted(body, self.guard)
        if without is None:
            return None
        edit_ids = (self.guard.values[place].edit_id for place in without.values)
        self.redacted_edits = tuple(dict.fromkeys((*self.redacted_edits, *edit_ids)))
        return without.body

    async def guarded(self, pieces: list[Piece], exchange: Exchange) -> list[Piece]:
        """Whole choices of the base model, in order, a refusal in the place of each that must not leave."""
        if self.reply_guard is None:
            return pieces
        pieces, value = await guarded_pieces(pieces, self.reply_guard)
        self.note_cut(value, exchange)
        return pieces

    def note_cut(self, value: GuardedValue | None, exchange: Exchange) -> None:
        """The reply was cut because of `value`; None: it was not."""
        if value is None:
            return
        self.cut_by = value
        self.plan = msgspec.structs.replace(self.plan, reason="reply cut")
        log.warning(
            "request %s: the reply was cut: it had the value that suppression %s of namespace %s keeps back",
            exchange.request_id.decode(), value.edit_id, value.namespace,
        )  # fmt: skip


def finished_request(exchange: Exchange, state: RequestState) -> FinishedRequest:
    """The record of a request that ends now."""
    plan, marks = state.plan, exchange.marks
    left_undecided = exchange.client_left and plan is UNDECIDED
    overhead_s = upstream_s = None
    if marks.upstream_sent and marks.upstream_answered and marks.response_begun:
        upstream_s = marks.upstream_answered - marks.upstream_sent
        before_s = marks.upstream_sent - marks.begun - marks.body_awaited_s
        overhead_s = max(0.0, before_s) + marks.response_begun - marks.upstream_answered
    error = exchange.upstream_error
    return FinishedRequest(
        request_id=exchange.request_id.decode(),
        upstream_request_id=(
            None if exchange.upstream_request_id is None else exchange.upstream_request_id.decode("latin-1")
        ),
        method=exchange.method,
        path=exchange.scope["raw_path"].decode("latin-1").removeprefix("/v1"),
        key_id=state.key_id,
        namespace=state.namespace,
        route=plan.route,
        reason="client left" if left_undecided else plan.reason,
        decision=plan.decision,
        query=plan.query,
        status=exchange.status,
        client_left=exchange.client_left,
        decide_s=plan.decide_s,
        overhead_s=overhead_s,
        upstream_s=upstream_s,
        first_byte_s=None if marks.first_byte is None else marks.first_byte - marks.begun,
        upstream_error=None if error is None else str(error.details.get("kind", "other")),
        speculation=None if state.speculative is None else state.speculative.outcome,
        failure=state.failure,
        key_store_failed=state.key_store_failed,
        redacted_edits=state.redacted_edits,
        trial=plan.trial,
        answer=(
            answer_text(bytes(exchange.kept), streams=exchange.streams) if exchange.keeps_reply else None
        ),
        labels=exchange.caller.labels,
        cut_by_edit=None if state.cut_by is None else state.cut_by.edit_id,
        model=plan.model,
        answer_tokens=exchange.answer_tokens,
        streamed=exchange.streams,
        total_s=time.perf_counter() - marks.begun,
        bytes_in=exchange.bytes_in,
        bytes_out=exchange.bytes_out,
    )
