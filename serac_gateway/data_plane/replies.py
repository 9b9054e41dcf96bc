"""Responses that the gateway makes itself: an answer as a stream, and a refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import msgspec

from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.plan import RequestPlan, serac_headers
from serac_gateway.data_plane.protocols.answers import ChoicePiece, event_stream
from serac_gateway.data_plane.protocols.base import AnswerWriter
from serac_gateway.data_plane.protocols.errors import client_protocol, error_body
from serac_gateway.errors import GatewayError, error_headers
from serac_gateway.routing.router import Route


async def send_stream(
    exchange: Exchange,
    plan: RequestPlan,
    writer: AnswerWriter,
    pieces: AsyncIterator[ChoicePiece],
    *,
    before_end: Callable[[], Awaitable[None]],
) -> None:
    """Send an answer as server-sent events, each as it is generated.

    What `pieces` raises before its first item is raised before the response begins, so that the caller can
    still send another one.
    """
    async with aclosing(event_stream(writer, pieces, before_end=before_end)) as events:
        first = await anext(events)
        await exchange.start(
            200,
            [
                *exchange.own_headers(),
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                *_gateway_headers(exchange, plan),
            ],
        )
        await exchange.write(first)
        async for chunk in events:
            await exchange.write(chunk)
        await exchange.finish()


async def refuse(exchange: Exchange, plan: RequestPlan, error: GatewayError) -> RequestPlan:
    """Send `error` if the response has not begun; returns the plan with the error's route and reason."""
    if exchange.status is not None:
        return plan  # too late for an error response: the server closes the connection
    status = error.status
    route = plan.route if status in (502, 504) else Route.BYPASS
    reason = str(error.details.get("reason", plan.reason))
    plan = msgspec.structs.replace(plan, route=route, reason=reason)
    headers = json_headers(exchange, plan) + [
        (name.encode(), value.encode()) for name, value in error_headers(status, error.details).items()
    ]
    await exchange.respond(status, headers, msgspec.json.encode(error_body(exchange, error)))
    return plan


def json_headers(exchange: Exchange, plan: RequestPlan) -> list[tuple[bytes, bytes]]:
    """The headers of a response with a JSON body."""
    return [(b"content-type", b"application/json"), *_gateway_headers(exchange, plan)]


def _gateway_headers(exchange: Exchange, plan: RequestPlan) -> list[tuple[bytes, bytes]]:
    """The x-serac-* headers, and those that clients of the API expect."""
    own = client_protocol(exchange).reply_headers(exchange.request_id.decode())
    return [*own, *serac_headers(exchange, plan)]
