"""One request and its response over ASGI, canceled when the client leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from functools import lru_cache
from types import TracebackType
from typing import cast

from litestar.types import HTTPScope, Receive, Scope, Send

from serac_gateway.data_plane import sse
from serac_gateway.data_plane.answer_text import MAX_REPLY_BYTES
from serac_gateway.data_plane.request_id import OWN_REQUEST_ID_HEADER, REQUEST_ID_HEADER, request_id
from serac_gateway.domain.audiences import UNKNOWN_CALLER
from serac_gateway.domain.body_budget import held_body
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import UpstreamError
from serac_gateway.observability.request_record import RequestMarks

_SERVER = b"serac"


class ClientLeftError(Exception):
    """The client closed its connection before the response was complete."""


class Exchange:
    """Reads the request, writes the response, and cancels the work when the client leaves.

    Used as ``async with``: inside, a client that leaves cancels the task, wherever it waits; the context
    swallows that cancellation and sets `client_left`.
    """

    def __init__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.headers = cast("Headers", scope["headers"])
        self.method: str = scope["method"]
        self.request_id = request_id(cast("Scope", scope)).encode()
        self.client_left = False
        self.upstream_request_id: bytes | None = None
        """The id that the upstream's response gives the request."""
        self.may_see_decision = False
        """Whether x-serac-debug may show the decision. Set it once the sender's role is known."""
        self.caller = UNKNOWN_CALLER
        """Whom it is decided for. Set it once the sender is known."""
        self.status: int | None = None
        """Of the response, once it has begun."""
        self.upstream_error: UpstreamError | None = None
        """The failure of the upstream, before its response or in the middle of it."""
        self.streams = False
        """Whether the response is an event stream."""
        self.marks = RequestMarks()
        self.answer_tokens = 0
        """Tokens that the counterfactual model generated for it."""
        self.bytes_in = 0
        """Bytes of the request's body that were read."""
        self.bytes_out = 0
        """Bytes of the response's body that were sent."""
        self.keeps_reply = False
        """Whether the response's body is kept, for its text to be read. Set it before the response begins; a
        compressed body is not kept."""
        self.kept = bytearray()
        """That body, up to a byte more than `MAX_REPLY_BYTES`."""
        self.held = held_body(scope)
        """The account of the memory that its body takes up."""
        self._receive = receive
        self._send = send
        self._watch: asyncio.Task[None] | None = None
        self._task: asyncio.Task[object] | None = None

    @property
    def raw_path(self) -> bytes:
        """The path as the client wrote it, without the query string."""
        path: bytes = self.scope["raw_path"]
        return path

    def header(self, name: bytes) -> bytes | None:
        """The first value of a request header (name in lower case)."""
        for key, value in self.headers:  # not by a generator: every request comes through here
            if key == name:
                return value
        return None

    def all_of(self, name: bytes) -> list[bytes]:
        """All values of a request header (name in lower case)."""
        return [value for key, value in self.headers if key == name]

    async def read_body(self, limit_bytes: int) -> bytes | AsyncIterator[bytes]:
        """The whole request body, or if it is longer than `limit_bytes` an iterator over all of it.

        Raises:
            BodyMemoryError: The bodies of all requests take up too much memory.
        """
        chunks: list[bytes] = []
        size = 0
        begun = time.perf_counter()
        while True:
            chunk, more = await self._read_chunk()
            self.held.add(len(chunk))
            chunks.append(chunk)
            size += len(chunk)
            if more and size <= limit_bytes:
                continue
            self.marks.body_awaited_s = time.perf_counter() - begun
            if more:
                return self._rest(chunks)
            self._start_watch()
            return b"".join(chunks)

    async def start(self, status: int, headers: Headers) -> None:
        """Send status and headers, as they are."""
        self.status = status
        for name, value in headers:
            if name == b"content-type" and value.startswith(sse.MEDIA_TYPE):
                self.streams = True
            if name == b"content-encoding" and value != b"identity":
                self.keeps_reply = False
        self.marks.response_begun = time.perf_counter()
        await self._send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, chunk: bytes) -> None:
        """Send a chunk of the body; waits while the client is slow to read."""
        self._note_sent(chunk)
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def ping(self) -> None:
        """Send a comment into an event stream: clients skip it, proxies keep the connection open for it.

        Without a blank line after it, for some clients take that for the end of an empty event.
        """
        await self._send({"type": "http.response.body", "body": b": ping\n", "more_body": True})

    async def finish(self, chunk: bytes = b"") -> None:
        """Send the last chunk of the body."""
        self._stop_watch()  # the server reports a completed response as a disconnect too
        self._note_sent(chunk)
        await self._send({"type": "http.response.body", "body": chunk, "more_body": False})

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole response that the gateway made."""
        length = (b"content-length", str(len(body)).encode())
        await self.start(status, [*self.own_headers(), *headers, length])
        await self.finish(body)

    def own_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of every response that the gateway made."""
        return [
            (b"date", _date(int(time.time()))),
            (b"server", _SERVER),
            (REQUEST_ID_HEADER, self.request_id),
            (OWN_REQUEST_ID_HEADER, self.request_id),
        ]

    async def __aenter__(self) -> Exchange:
        self._task = asyncio.current_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._stop_watch()
        if not self.client_left:
            return False
        if self._task is not None and isinstance(exc, asyncio.CancelledError) and self._task.uncancel() > 0:
            return False  # something else has canceled the task as well
        return isinstance(exc, asyncio.CancelledError | ClientLeftError)

    def add_answer_tokens(self, count: int) -> None:
        """Count tokens that the counterfactual model generated for this request."""
        self.answer_tokens += count

    def _note_sent(self, chunk: bytes) -> None:
        if not self.bytes_out and chunk:
            self.marks.first_byte = time.perf_counter()
        self.bytes_out += len(chunk)
        if self.keeps_reply and len(self.kept) <= MAX_REPLY_BYTES:
            self.kept += chunk[: MAX_REPLY_BYTES + 1 - len(self.kept)]

    async def _rest(self, chunks: list[bytes]) -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk
        self.held.remove(sum(map(len, chunks)))
        chunks.clear()
        more = True
        while more:
            try:
                chunk, more = await self._read_chunk()
            except ClientLeftError:
                self._cancel_task()
                raise
            yield chunk
        self._start_watch()

    async def _read_chunk(self) -> tuple[bytes, bool]:
        message = await self._receive()
        if message["type"] != "http.request":
            self.client_left = True
            raise ClientLeftError
        self.bytes_in += len(message["body"])
        return message["body"], message["more_body"]

    def _start_watch(self) -> None:
        self._watch = asyncio.create_task(self._wait_for_disconnect())

    def _stop_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._cancel_task()

    def _cancel_task(self) -> None:
        self.client_left = True
        if self._task is not None:
            self._task.cancel()


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    """The Date header of a second since 1970, formatted once and not for every response."""
    return formatdate(second, usegmt=True).encode()
