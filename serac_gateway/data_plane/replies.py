"""Replies that the gateway makes itself: an answer as a stream, and a refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec

from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.plan import RequestPlan, verdict_headers
from serac_gateway.data_plane.protocols.answers import Part, event_stream
from serac_gateway.data_plane.protocols.base import AnswerWriter
from serac_gateway.data_plane.protocols.errors import ErrorShape, error_body, error_shape
from serac_gateway.errors import GatewayError, error_headers
from serac_gateway.routing.router import Route


async def send_stream(
    exchange: Exchange, verdict: RequestPlan, writer: AnswerWriter, parts: AsyncIterator[Part]
) -> None:
    """Send an answer as server-sent events, as they come."""
    async with aclosing(event_stream(writer, parts)) as events:
        first = await anext(events)  # before the status goes out: until here all can still fail openly
        await exchange.start(
            200,
            [
                *exchange.own_headers(),
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                *_told(exchange, verdict),
            ],
        )
        await exchange.write(first)
        async for chunk in events:
            await exchange.write(chunk)
        await exchange.finish()


async def refuse(exchange: Exchange, verdict: RequestPlan, error: GatewayError) -> RequestPlan:
    """Tell the client of `error`, if nothing was sent yet; the verdict on the request with that."""
    if exchange.status is not None:
        return verdict  # too late to say anything: the server closes the connection
    status, body = error_body(exchange, error)
    route = verdict.route if status in (502, 504) else Route.BYPASS
    reason = str(error.details.get("reason", verdict.reason))
    verdict = msgspec.structs.replace(verdict, route=route, reason=reason)
    headers = json_headers(exchange, verdict) + [
        (name.encode(), value.encode()) for name, value in error_headers(status, error.details).items()
    ]
    await exchange.respond(status, headers, msgspec.json.encode(body))
    return verdict


def json_headers(exchange: Exchange, verdict: RequestPlan) -> list[tuple[bytes, bytes]]:
    """The headers of a whole reply."""
    return [(b"content-type", b"application/json"), *_told(exchange, verdict)]


def _told(exchange: Exchange, verdict: RequestPlan) -> list[tuple[bytes, bytes]]:
    """Headers of a reply of our own; Anthropic's clients know a request by `request-id`."""
    own = [(b"request-id", exchange.request_id)] if error_shape(exchange) is ErrorShape.ANTHROPIC else []
    return [*own, *verdict_headers(exchange, verdict)]
