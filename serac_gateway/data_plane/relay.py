"""Passes an upstream's response on to the client, byte for byte, each chunk as it arrives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from serac_gateway.data_plane import sse
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.protocols.errors import error_event
from serac_gateway.data_plane.request_id import REQUEST_ID_HEADER
from serac_gateway.data_plane.upstream.base import UpstreamResponse
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import UpstreamError

log = logging.getLogger(__name__)

NO_CONTENT = frozenset({204, 304})
_MAX_ID_BYTES = 128


async def relay(
    response: UpstreamResponse,
    exchange: Exchange,
    extra_headers: Headers,
    ping_interval_s: float | None = None,
) -> None:
    """Send `response` with `extra_headers` added.

    With `ping_interval_s` the client of an event stream gets comments until the first chunk arrives.

    When the upstream breaks an event stream off, the stream ends with one error event; any other body is
    broken off towards the client too, because its announced length or compression can no longer be kept.
    """
    exchange.upstream_request_id = request_id_in(response.headers)
    await exchange.start(response.status, response_headers(response, exchange, extra_headers))
    if exchange.method == "HEAD" or response.status in NO_CONTENT:
        await exchange.finish()
        return
    if _is_plain_event_stream(response.headers):
        chunks = response.body
        if ping_interval_s is not None:
            chunks = after_pings(chunks, exchange, ping_interval_s)
        await _relay_events(chunks, exchange)
        return
    try:
        async for chunk in response.body:
            if not exchange.bytes_out and response.has_ended():  # most bodies: one message to the server less
                await exchange.finish(chunk)
                return
            await exchange.write(chunk)
    except UpstreamError as error:
        exchange.upstream_error = error
        log.warning("request %s: broken off towards the client as well", exchange.request_id.decode())
        return  # without the last message the server closes the connection
    await exchange.finish()


async def after_pings(
    body: AsyncIterator[bytes], exchange: Exchange, interval_s: float
) -> AsyncIterator[bytes]:
    """`body`; until its first chunk arrives the client gets a comment every `interval_s` seconds."""
    pinging: asyncio.Task[None] | None = None

    def begin() -> None:
        nonlocal pinging
        pinging = asyncio.create_task(_ping(exchange, interval_s))

    timer = asyncio.get_running_loop().call_later(
        interval_s, begin
    )  # a task only for streams that wait so long
    try:
        first = await anext(body, None)
    finally:
        timer.cancel()
        if pinging is not None:
            pinging.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pinging
    if first is not None:
        yield first
        async for chunk in body:
            yield chunk


async def _ping(exchange: Exchange, interval_s: float) -> None:
    while True:
        await exchange.ping()
        await asyncio.sleep(interval_s)


async def _relay_events(chunks: AsyncIterator[bytes], exchange: Exchange) -> None:
    boundaries = sse.EventBoundaries()
    try:
        async for chunk in chunks:
            if ready := boundaries.feed(chunk):
                await exchange.write(ready)
    except UpstreamError as error:
        exchange.upstream_error = error
        event = error_event(exchange, error, boundaries.next_number)
        await exchange.finish(b"" if boundaries.ended else boundaries.separator + event)
        return
    await exchange.finish(boundaries.held)


def response_headers(
    response: UpstreamResponse, exchange: Exchange, extra_headers: Headers
) -> list[tuple[bytes, bytes]]:
    """The upstream's headers in order, then those of date, server and x-request-id that it did not send.

    The gateway's own id of the request is added in any case.
    """
    headers = [
        (name, value)
        for name, value in response.headers
        if not name.startswith(b"x-serac-")
        and not (name == b"content-length" and response.status in NO_CONTENT)
    ]
    present = {name for name, _ in (*headers, *extra_headers)}
    added = [(name, value) for name, value in exchange.own_headers() if name not in present]
    return [*headers, *added, *extra_headers]


def request_id_in(headers: Headers) -> bytes | None:
    """The id that an upstream gives a request: in OpenAI's header, else in Anthropic's."""
    ids = dict(headers)
    value = ids.get(REQUEST_ID_HEADER, ids.get(b"request-id", b""))
    return value if 0 < len(value) <= _MAX_ID_BYTES else None


def _is_plain_event_stream(headers: Headers) -> bool:
    """Whether an event can be added: an event stream without announced length or compression."""
    names = dict(headers)
    return (
        names.get(b"content-type", b"").lower().startswith(sse.MEDIA_TYPE)
        and b"content-length" not in names
        and names.get(b"content-encoding", b"identity") == b"identity"
    )
