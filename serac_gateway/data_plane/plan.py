"""The plan for a request: its route and what follows from it, made from the request's body."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.protocols.base import CompletionRequest
from serac_gateway.data_plane.protocols.body import UNDECODABLE, RequestBody
from serac_gateway.data_plane.protocols.edits_in_context import with_edits
from serac_gateway.data_plane.protocols.endpoints import PROTOCOLS
from serac_gateway.domain.edits import Edit
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import MALFORMED, Bypass, Query
from serac_gateway.routing.router import EditRouter, Route, RouteDecision

HEADER_SCHEMA = b"1"
"""The version of the meaning of the x-serac-* headers (docs/api.md). Adding a header keeps the version;
changing or removing one makes the next."""


class AnswerTask(msgspec.Struct, frozen=True, kw_only=True):
    """The input of an answer by the counterfactual model."""

    edit: Edit
    query: Query
    request: CompletionRequest


class RequestPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The route of a request, why it takes it, and what the gateway does with it."""

    route: Route
    reason: str
    decision: RouteDecision | None = None
    """None: the router was not needed, or failed."""
    task: AnswerTask | None = None
    """Set if, and only if, the request is to be answered here."""
    body: bytes | None = None
    """The body for the upstream instead of the client's; None: the client's, byte for byte."""
    model: str | None = None
    """The one that the request names; None where no decision was needed."""
    query: Query | None = None
    """The text of the decision, if there was one. Content: see `FinishedRequest.query`."""
    decide_s: float | None = None
    """From the whole request to the decision, waiting included; None if none was needed."""


UNDECIDED = RequestPlan(route=Route.BYPASS, reason="refused")
"""The plan of a request that ends before it is decided on."""


def plan_request(
    router: EditRouter, namespace: str, endpoint: Endpoint, body: RequestBody, sender: str
) -> RequestPlan:
    """The plan for a whole request body. Runs on a worker thread: parsing a long body takes time, too.

    Canaries go by the user that the body names, else by the `sender`.

    Raises:
        ModelUnavailableError: Encoder or classifier failed.
    """
    try:
        decoded = body.decode()
    except UNDECODABLE:
        return RequestPlan(route=Route.BYPASS, reason=MALFORMED.reason)
    protocol = PROTOCOLS[endpoint]
    query = protocol.query(decoded)
    if isinstance(query, Bypass):
        return RequestPlan(route=Route.BYPASS, reason=query.reason)
    request = protocol.parse_request(decoded)
    if isinstance(request, Bypass):
        return RequestPlan(route=Route.BYPASS, reason=request.reason)
    (decision,) = router.decide(namespace, [query], caller=_user_or(sender, decoded))
    task = None
    if decision.route is Route.COUNTERFACTUAL and decision.edit is not None:
        task = AnswerTask(edit=decision.edit, query=query, request=request)
    edited_body = (
        with_edits(protocol, body.members, decision.context_edits) if decision.context_edits else None
    )
    return RequestPlan(
        route=decision.route,
        reason=decision.reason,
        decision=decision,
        task=task,
        body=edited_body,
        model=request.model,
        query=query,
    )


def _user_or(sender: str, decoded: object) -> str:
    """The user that a decoded body names, else the sender.

    A body names one in `safety_identifier` or `user` (its older name), in Anthropic's API in
    `metadata.user_id`.
    """
    assert isinstance(decoded, Mapping)  # a request has been parsed from it
    metadata = decoded.get("metadata")
    user_id = metadata.get("user_id") if isinstance(metadata, Mapping) else None
    for value in (decoded.get("safety_identifier"), decoded.get("user"), user_id):
        if isinstance(value, str) and value:
            return f"user:{value}"
    return sender


def serac_headers(exchange: Exchange, plan: RequestPlan) -> list[tuple[bytes, bytes]]:
    """The x-serac-* headers of a response: the route; the details only where the request wants them.

    The decision's details only if the sender may see them: with edit ids and probabilities, one who may not
    read edits could search for their text.
    """
    headers = [(b"x-serac-route", plan.route.encode()), (b"x-serac-schema", HEADER_SCHEMA)]
    if (exchange.header(b"x-serac-debug") or b"").lower() not in (b"true", b"1"):
        return headers
    headers.append((b"x-serac-reason", plan.reason.encode()))
    decision = plan.decision
    if decision is None or not exchange.may_see_decision:
        return headers
    for edit in decision.governing_edits:
        headers.append((b"x-serac-edit-id", edit.id.encode()))
        headers.append((b"x-serac-edit-version", str(edit.version).encode()))
    if decision.withheld is not None:
        headers.append((b"x-serac-withheld-edit-id", decision.withheld.id.encode()))
        headers.append((b"x-serac-withheld-edit-version", str(decision.withheld.version).encode()))
    if decision.scope_probability is not None:
        headers.append((b"x-serac-scope-probability", f"{decision.scope_probability:.4f}".encode()))
    timings = decision.timings
    stages = (
        ("encode", timings.encode_s),
        ("search", timings.search_s),
        ("classify", timings.classify_s),
        ("decide", plan.decide_s or 0.0),
    )
    # In milliseconds, in the format of the header Server-Timing.
    value = ", ".join(f"{name};dur={stage_s * 1_000:.3f}" for name, stage_s in stages)
    return [*headers, (b"x-serac-timings", value.encode())]
