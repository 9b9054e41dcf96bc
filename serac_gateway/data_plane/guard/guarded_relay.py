"""Passes an upstream's response on while it is watched for the values that suppressions keep back.

A whole reply leaves once all of it has been read; a stream as it comes, but for what may yet be a match.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import msgspec

from serac_gateway.data_plane.encodings import codings_of
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.guard.event_pieces import NO_JSON, EventPieces
from serac_gateway.data_plane.guard.guards import ValueGuard
from serac_gateway.data_plane.guard.reply_text import ReplyText, decoded_json, reply_texts
from serac_gateway.data_plane.guard.reply_watch import Cut, Piece, ReplyWatch
from serac_gateway.data_plane.paths import classified_path
from serac_gateway.data_plane.protocols.base import AnswerHead, Choice, CompletionRequest, Usage
from serac_gateway.data_plane.protocols.broken_streams import broken_stream
from serac_gateway.data_plane.protocols.endpoints import PROTOCOLS
from serac_gateway.data_plane.protocols.errors import error_event
from serac_gateway.data_plane.relay import NO_CONTENT, after_pings, relay, request_id_in, response_headers
from serac_gateway.data_plane.sse import MEDIA_TYPE
from serac_gateway.data_plane.upstream.base import UpstreamResponse
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import ReplyWithheldError, UpstreamError
from serac_gateway.models.language_models.base import Piece as AnswerPiece
from serac_gateway.routing.guarded_values import GuardedValue

MAX_WHOLE_BYTES: Final = 67_108_864
"""The longest reply that is no stream."""
GUARD_HEADER: Final = b"x-serac-guard"
_NO_TEXT: Final = (b"image/", b"audio/", b"video/", b"font/", b"application/pdf", b"application/zip")
_JSON_LINES: Final = (b"jsonl", b"ndjson", b"json-lines", b"stream+json")
_LINES: Final = (b"data:", b"event:", b"id:", b"retry:", b": ", b"{")
"""How a stream of events or of objects begins."""
_BEGINNING_BYTES: Final = 6
_LARGE_BYTES: Final = 262_144
"""A longer reply is decoded on a thread, while other requests are served."""
_KEPT: Final = ("created", "created_at", "usage")
log = logging.getLogger(__name__)


async def relay_guarded(
    response: UpstreamResponse,
    exchange: Exchange,
    extra_headers: Headers,
    guard: ValueGuard | None,
    ping_interval_s: float | None,
) -> GuardedValue | None:
    """Send `response` to the client, unwatched if `guard` is None; the value because of which it was cut.

    Raises:
        UpstreamError: It came in an encoding that was not asked for, or is too long to be watched.
        ReplyWithheldError: It has a value, and its path is of no API that has a form for a refusal.
        BodyMemoryError: The bodies of all requests take up too much memory.
    """
    if guard is None:
        await relay(response, exchange, extra_headers, ping_interval_s)
        return None
    headers = dict(response.headers)
    kind = headers.get(b"content-type", b"").lower()
    if exchange.method == "HEAD" or response.status in NO_CONTENT or kind.startswith(_NO_TEXT):
        await relay(response, exchange, extra_headers, ping_interval_s)
        return None
    exchange.upstream_request_id = request_id_in(response.headers)
    endpoint = classified_path(exchange.raw_path).endpoint if exchange.method == "POST" else None
    encoding = headers.get(b"content-encoding", b"").decode("latin-1")
    if codings_of(encoding):
        raise UpstreamError(
            f"the upstream's reply is in Content-Encoding {encoding[:40]!r}, though identity was asked for,"
            " and replies are watched here; switch compression off at the upstream",
            details={"kind": "encoded reply"},
        )
    watched = [*extra_headers, (GUARD_HEADER, b"watched")]
    if kind.startswith(MEDIA_TYPE):
        stream = _GuardedStream(exchange, guard, endpoint)
        return await stream.relay(response, watched, ping_interval_s)
    if b"json" in kind and not any(name in kind for name in _JSON_LINES):
        return await _relay_whole(response, exchange, watched, guard, endpoint)
    beginning = await _beginning(response.body)
    response = msgspec.structs.replace(response, body=_joined(beginning, response.body))
    if beginning.startswith(_LINES):  # events, or objects a line each, whatever the type says
        is_events = not beginning.startswith(b"{")
        stream = _GuardedStream(exchange, guard, endpoint, breaks_off=not is_events)
        return await stream.relay(response, watched, None)
    return await _relay_text(response, exchange, watched, guard)


async def _beginning(body: AsyncIterator[bytes]) -> bytes:
    beginning = b""
    while len(beginning) < _BEGINNING_BYTES and (chunk := await anext(body, b"")):
        beginning += chunk
    return beginning


async def _joined(beginning: bytes, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if beginning:
        yield beginning
    async for chunk in body:
        yield chunk


async def _relay_whole(
    response: UpstreamResponse,
    exchange: Exchange,
    extra_headers: Headers,
    guard: ValueGuard,
    endpoint: Endpoint | None,
) -> GuardedValue | None:
    body = await _whole_body(response, exchange)
    if len(body) > _LARGE_BYTES:
        value, texts = await asyncio.to_thread(_read, body)
    else:
        value, texts = _read(body)
    watch = ReplyWatch(guard.patterns)
    cut = await watch.add(b"", None, texts) or watch.close()
    if cut is None:
        await exchange.start(response.status, response_headers(response, exchange, extra_headers))
        await exchange.finish(body)
        return None
    reason = guard.values[cut.value]
    if endpoint is None or response.status != 200:
        raise withheld(reason)
    refused = msgspec.json.encode(_refused(endpoint, value, reason.refusal))
    others = [header for header in extra_headers if header[0] != GUARD_HEADER]
    own = [(b"content-type", b"application/json"), *others, (GUARD_HEADER, b"cut")]
    await exchange.respond(200, own, refused)
    return reason


def _read(body: bytes) -> tuple[object, list[ReplyText]]:
    """The decoded reply, None if it is no JSON, and its texts."""
    try:
        value = decoded_json(body)
        return value, reply_texts(value)
    except ValueError:
        return None, [(NO_JSON, body.decode("utf-8", "replace"))]


async def _whole_body(response: UpstreamResponse, exchange: Exchange) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.body:
        size += len(chunk)
        if size > MAX_WHOLE_BYTES:
            raise UpstreamError(
                f"the upstream's reply is longer than {MAX_WHOLE_BYTES:,} bytes, and has to be read here"
                " before it is sent on; ask for less, or for a stream",
                details={"kind": "reply too long"},
            )
        exchange.held.add(len(chunk))
        chunks.append(chunk)
    return b"".join(chunks)


async def _relay_text(
    response: UpstreamResponse, exchange: Exchange, extra_headers: Headers, guard: ValueGuard
) -> GuardedValue | None:
    """Pass on a text that is no JSON; where it has a value, the connection breaks off."""
    watch = ReplyWatch(guard.patterns)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    await exchange.start(response.status, response_headers(response, exchange, extra_headers))
    async for chunk in response.body:
        cut = await watch.add(chunk, None, [(NO_JSON, decoder.decode(chunk))])
        if cut is not None:
            return guard.values[cut.value]
        if ready := b"".join(piece.data for piece in watch.released()):
            await exchange.write(ready)
    if (cut := watch.close()) is not None:
        return guard.values[cut.value]
    await exchange.finish(b"".join(piece.data for piece in watch.released()))
    return None


class _GuardedStream:
    """A stream of events on its way to the client."""

    def __init__(
        self,
        exchange: Exchange,
        guard: ValueGuard,
        endpoint: Endpoint | None,
        *,
        breaks_off: bool = False,
    ) -> None:
        """`breaks_off`: its events are lines that have no form for a refusal."""
        self._breaks_off = breaks_off
        self._exchange = exchange
        self._guard = guard
        self._watch = ReplyWatch(guard.patterns)
        self._pieces = EventPieces()
        self._broken = None if endpoint is None else broken_stream(endpoint)

    async def relay(
        self, response: UpstreamResponse, extra_headers: Headers, ping_interval_s: float | None
    ) -> GuardedValue | None:
        exchange = self._exchange
        headers = response_headers(response, exchange, extra_headers)
        if not self._breaks_off:
            headers = [header for header in headers if header[0] != b"content-length"]
        await exchange.start(response.status, headers)
        chunks = response.body
        if ping_interval_s is not None:
            chunks = after_pings(chunks, exchange, ping_interval_s)
        broke_off: UpstreamError | None = None
        try:
            async for chunk in chunks:
                if (value := await self._take(chunk)) is not None:
                    return value
        except UpstreamError as error:
            broke_off = exchange.upstream_error = error
        boundaries = self._pieces.boundaries
        if broke_off is None and boundaries.held:
            cut = await self._add_all(b"", is_last=True)
            if cut is not None:
                return await self._end(cut)
        if (cut := self._watch.close()) is not None:
            return await self._end(cut)
        rest = b"".join(piece.data for piece in self._watch.released())
        if broke_off is not None and self._breaks_off:
            return None
        if broke_off is not None and not boundaries.ended:
            rest += boundaries.separator + error_event(exchange, broke_off, boundaries.next_number)
        await exchange.finish(rest)
        return None

    async def _take(self, chunk: bytes) -> GuardedValue | None:
        if (cut := await self._add_all(chunk)) is not None:
            return await self._end(cut)
        if ready := self._released(self._watch.released()):
            await self._exchange.write(ready)
        return None

    async def _add_all(self, chunk: bytes, *, is_last: bool = False) -> Cut | None:
        for piece in self._pieces.close() if is_last else self._pieces.feed(chunk):
            if self._broken is not None and isinstance(piece.value, Mapping):
                self._broken.see(piece.value)
            if (cut := await self._watch.add(piece.data, piece.value, piece.texts)) is not None:
                return cut
        return None

    def _released(self, pieces: list[Piece] | tuple[Piece, ...]) -> bytes:
        if self._broken is not None:
            for piece in pieces:
                if isinstance(piece.value, Mapping):
                    self._broken.sent(piece.value)
        return b"".join(piece.data for piece in pieces)

    async def _end(self, cut: Cut) -> GuardedValue:
        reason = self._guard.values[cut.value]
        before = self._released(cut.before)
        if self._breaks_off:
            if before:
                await self._exchange.write(before)
            return reason
        if self._broken is not None:
            last = self._broken.end(reason.refusal, cut.place, cut.prefix)
        else:
            last = error_event(self._exchange, withheld(reason))
        await self._exchange.finish(before + last)
        return reason


async def guarded_pieces(
    pieces: list[AnswerPiece], guard: ValueGuard
) -> tuple[list[AnswerPiece], GuardedValue | None]:
    """Whole answers of the base model, a refusal in the place of each that has a value; and such a value."""
    reason: GuardedValue | None = None
    checked: list[AnswerPiece] = []
    for piece in pieces:
        watch = ReplyWatch(guard.patterns)
        cut = await watch.add(b"", None, [("", piece.text)]) or watch.close()
        if cut is not None:
            reason = guard.values[cut.value]
            piece = AnswerPiece(text=reason.refusal, tokens=piece.tokens, finish_reason="content_filter")
        checked.append(piece)
    return checked, reason


def withheld(reason: GuardedValue) -> ReplyWithheldError:
    """The error for a reply that has no form for a refusal."""
    return ReplyWithheldError(reason.refusal, details={"reason": "reply cut"})


def _refused(endpoint: Endpoint, value: object, refusal: str) -> dict[str, object]:
    """The whole answer of an API with `refusal` in the place of every choice of `value`, the upstream's."""
    body: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
    choices = body.get("choices")
    count = len(choices) if isinstance(choices, list) and choices else 1
    model = body.get("model")
    request = CompletionRequest(
        endpoint=endpoint, model=model if isinstance(model, str) else "", choices=count
    )
    head = AnswerHead(token=secrets.token_hex(12), created=int(time.time()), system_fingerprint="")
    choice = Choice(text=refusal, finish_reason="content_filter")
    writer = PROTOCOLS[endpoint].answer_writer(head, request)
    whole = writer.whole([choice] * count, Usage(prompt_tokens=0, completion_tokens=0))
    return {**whole, **{name: body[name] for name in _KEPT if name in whole and name in body}}
