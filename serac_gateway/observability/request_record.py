"""The record of a request on /v1: its points in time while it runs, and the whole once it has ended."""

from __future__ import annotations

import time
from typing import Literal

import msgspec

from serac_gateway.config.model import FailurePolicy
from serac_gateway.domain.edits import Edit
from serac_gateway.domain.queries import Query
from serac_gateway.domain.trials import Trial
from serac_gateway.routing.router import Route, RouteDecision


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway could not decide on a request, or could not answer it."""

    reason: str
    """A few words for metrics."""
    policy: FailurePolicy
    """What the gateway did then: pass the request on, or refuse it."""


class FinishedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that has ended, answered or not. Durations are in seconds, sizes in bytes."""

    request_id: str
    upstream_request_id: str | None = None
    """The id that the upstream's response gave it; the client sees it as x-request-id."""
    method: str
    path: str
    """Below /v1, as the client wrote it, without the query string."""
    key_id: str | None
    namespace: str | None
    """None: the request was refused before its namespace was known."""
    route: Route
    """The way that it took; after a failure not the one decided."""
    reason: str
    decision: RouteDecision | None
    query: Query | None
    """The text of the decision. It is content: only what is configured to may log or keep it."""
    status: int | None
    """None: no response was begun."""
    client_left: bool
    decide_s: float | None
    """From the whole request to the decision, waiting included; None if none was needed."""
    overhead_s: float | None
    """In the gateway: before the upstream was sent the request, without waiting for the client's body, and
    from the upstream's headers to ours. Deciding while the upstream is at work counts as far as it ends after
    that. None: the upstream did not answer."""
    upstream_s: float | None
    """From sending the request to the upstream to its headers."""
    first_byte_s: float | None
    """From the request's first line to the first byte of the response's body."""
    upstream_error: str | None
    """The kind of failure, if the upstream failed or broke its response off."""
    speculation: Literal["used", "called off"] | None
    """What became of the request to the upstream that was sent before the decision; None: none was sent."""
    failure: Failure | None
    key_store_failed: bool
    """Whether the client's API key could not be looked up."""
    redacted_edits: tuple[str, ...] = ()
    """The suppressions whose values were taken out of the request before it went to the base model."""
    cut_by_edit: str | None = None
    """The suppression whose value the upstream's reply had, so that it was cut."""
    trial: Trial | None = None
    """The canary in whose scope it is, and the side on which its user is."""
    answer: str | None = None
    """The text of the reply, of requests of a trial where the namespace's traffic is recorded. Content."""
    labels: dict[str, str] = {}
    """By which the audiences of edits went."""
    model: str | None
    """The one that the request names, if the gateway decided on it."""
    answer_tokens: int
    """Tokens that the counterfactual model generated for it."""
    streamed: bool
    """Whether the response is an event stream."""
    total_s: float
    bytes_in: int
    bytes_out: int

    @property
    def applied_edits(self) -> tuple[Edit, ...]:
        """The edits that the response was made with; empty if the base model answered unchanged."""
        if self.decision is None or self.route not in _EDITED_ROUTES:
            return ()
        return self.decision.governing_edits


_EDITED_ROUTES = frozenset({Route.COUNTERFACTUAL, Route.IN_CONTEXT})


class RequestMarks:
    """The points in time of a running request, on the clock of `time.perf_counter`; None: not reached yet."""

    __slots__ = (
        "answer_begun",
        "begun",
        "body_awaited_s",
        "decide_begun",
        "first_byte",
        "response_begun",
        "upstream_answered",
        "upstream_sent",
    )

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.body_awaited_s = 0.0
        """Seconds spent waiting for the client's body, until it was complete or passing it on began."""
        self.decide_begun: float | None = None
        self.answer_begun: float | None = None
        """The counterfactual model was given the request."""
        self.upstream_sent: float | None = None
        """The request went out to the upstream."""
        self.upstream_answered: float | None = None
        """The upstream's headers arrived."""
        self.response_begun: float | None = None
        """Status and headers went out to the client."""
        self.first_byte: float | None = None
        """The first byte of the response's body went out to the client."""
