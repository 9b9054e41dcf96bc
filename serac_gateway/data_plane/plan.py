"""Where a request goes and why: decided from its body, and told in response headers."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.protocols.base import CompletionRequest
from serac_gateway.data_plane.protocols.edits_in_context import with_edits
from serac_gateway.data_plane.protocols.endpoints import parse_completion_request
from serac_gateway.domain.edits import Edit
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import MALFORMED, Bypass, Query, extract_query
from serac_gateway.routing.router import EditRouter, Route, RouteDecision

HEADER_SCHEMA = b"1"
"""The version of what the x-serac-* headers mean (README, "Observe it"). A header may be added to a version;
one that changes or goes makes another."""


class AnswerTask(msgspec.Struct, frozen=True, kw_only=True):
    """What the counterfactual model needs to answer a request."""

    edit: Edit
    query: Query
    request: CompletionRequest


class RequestPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request goes, and what was found out about it on the way."""

    route: Route
    reason: str
    decision: RouteDecision | None = None
    task: AnswerTask | None = None
    """Set if, and only if, the request is to be answered here."""
    body: bytes | None = None
    """What the upstream gets instead of the client's body; None: that one, byte for byte."""
    model: str | None = None
    """The one that the request names, if it was decided on."""
    query: Query | None = None
    """What was decided on, if anything was. Content: see `FinishedRequest.query`."""
    decide_ms: float | None = None
    """From the whole request to the decision, waiting included; None if none was needed."""


UNDECIDED = RequestPlan(route=Route.BYPASS, reason="refused")
"""Of a request that ended before it was decided on."""


def decide(router: EditRouter, namespace: str, endpoint: Endpoint, body: bytes, sender: str) -> RequestPlan:
    """Decide on a whole request body. Runs on a worker thread: parsing a long one takes time too.

    Canaries go by the user that the body names, else by the `sender`.

    Raises:
        ModelUnavailableError: Encoder or classifier failed.
    """
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return RequestPlan(route=Route.BYPASS, reason=MALFORMED.reason)
    query = extract_query(endpoint, decoded)
    if isinstance(query, Bypass):
        return RequestPlan(route=Route.BYPASS, reason=query.reason)
    request = parse_completion_request(endpoint, decoded)
    if isinstance(request, Bypass):
        return RequestPlan(route=Route.BYPASS, reason=request.reason)
    (decision,) = router.decide(namespace, [query], asker=_asker(decoded, sender))
    task = None
    if decision.route is Route.COUNTERFACTUAL and decision.edit is not None:
        task = AnswerTask(edit=decision.edit, query=query, request=request)
    told = with_edits(endpoint, body, decision.context_edits) if decision.context_edits else None
    return RequestPlan(
        route=decision.route,
        reason=decision.reason,
        decision=decision,
        task=task,
        body=told,
        model=request.model,
        query=query,
    )


def _asker(decoded: Mapping[str, object], sender: str) -> str:
    """Who asks, by what stays the same, else the sender.

    That is `safety_identifier` or `user` (its older name), and in Anthropic's requests `metadata.user_id`.
    """
    metadata = decoded.get("metadata")
    user_id = metadata.get("user_id") if isinstance(metadata, Mapping) else None
    for value in (decoded.get("safety_identifier"), decoded.get("user"), user_id):
        if isinstance(value, str) and value:
            return f"user:{value}"
    return sender


def verdict_headers(exchange: Exchange, verdict: RequestPlan) -> list[tuple[bytes, bytes]]:
    """The x-serac-* headers of a response: the route, and the details if the request asks for them."""
    headers = [(b"x-serac-route", verdict.route.encode()), (b"x-serac-schema", HEADER_SCHEMA)]
    if (exchange.header(b"x-serac-debug") or b"").lower() not in (b"true", b"1"):
        return headers
    headers.append((b"x-serac-reason", verdict.reason.encode()))
    decision = verdict.decision
    if decision is None:
        return headers
    for edit in decision.context_edits or ((decision.edit,) if decision.edit else ()):
        headers.append((b"x-serac-edit-id", edit.id.encode()))
        headers.append((b"x-serac-edit-version", str(edit.version).encode()))
    if decision.withheld is not None:
        headers.append((b"x-serac-withheld-edit-id", decision.withheld.id.encode()))
        headers.append((b"x-serac-withheld-edit-version", str(decision.withheld.version).encode()))
    if decision.scope_probability is not None:
        headers.append((b"x-serac-scope-probability", f"{decision.scope_probability:.4f}".encode()))
    timings = decision.timings
    parts = (
        ("encode", timings.encode_ms),
        ("search", timings.search_ms),
        ("classify", timings.classify_ms),
        ("decide", verdict.decide_ms or 0.0),
    )
    shown = ", ".join(f"{name};dur={ms:.3f}" for name, ms in parts)  # as Server-Timing has them
    return [*headers, (b"x-serac-timings", shown.encode())]
