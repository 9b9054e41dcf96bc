"""HTTP as uvicorn speaks it, with limits on what a client may send before a request is whole.

uvicorn by itself holds a head of any length and waits for its end for any time.
"""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Any

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from serac_gateway.config.model import ServerConfig

_HEADER_EXTRA_BYTES = 4
"""": " and the end of the line."""


class _HeadTooLongError(Exception):
    pass


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. What breaks a limit gets a status and the connection's end."""

    limits = ServerConfig()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._in_head = self._in_body = False
        self._head_bytes: int | None = None
        """Of a head that is not whole yet, read since the read in which it began."""
        self._is_last = False
        """Whether the connection ends with the next response."""
        self._resuming = False
        """Whether another parser is being told of a head that was read before."""
        self._waiting: asyncio.TimerHandle | None = None
        self._refusal = (400, "bad_request", "the request is not valid HTTP/1.1")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first byte as long as for a head."""
        super().connection_made(transport)
        self._wait(self.limits.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more to wait for."""
        self._stop_waiting()
        super().connection_lost(exc)

    def end_with_next(self) -> bool:
        """Close after the next response that has not begun, and say so in it.

        Whether such a response is none yet, but of a request that may be on its way.
        """
        self._is_last = True
        if self.cycle is None or self.cycle.response_complete:
            return True
        if not self.cycle.response_started:
            self.cycle.keep_alive = False
        return self.cycle.keep_alive

    def data_received(self, data: bytes) -> None:
        """Read on; the time for a head counts from its first byte, that for a body from its latest."""
        was_in_head = self._in_head
        self._unset_keepalive_if_required()
        self._feed(data)
        if self.transport.is_closing():
            self._stop_waiting()
        elif self._in_head:
            # What came with the head's beginning may belong to requests before; it is one read at most.
            self._head_bytes = 0 if self._head_bytes is None else self._head_bytes + len(data)
            if self._head_bytes > self.limits.max_head_bytes:
                self._refuse_long_head()
            elif not was_in_head or self._waiting is None:
                self._wait(self.limits.head_timeout_s)
        elif self._in_body:
            self._wait(self.limits.body_gap_timeout_s)
        else:
            self._stop_waiting()

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserError:
                self.send_400_response("")
                return
            except httptools.HttpParserUpgrade as upgrade:
                (end_of_head,) = upgrade.args
                data = self._head_as_http1() + data[end_of_head:]

    def _head_as_http1(self) -> bytes:
        """What to tell a new parser of a request that would like another protocol, as Java's client HTTP/2.

        The parser takes what follows such a head for the other protocol's, and uvicorn drops it. A server
        may ignore the wish (RFC 9110, section 7.8): another parser reads the body on, told its length.
        """
        self.parser = httptools.HttpRequestParser(self)
        self._resuming = True
        framing = [one for one in self.headers if one[0] in (b"content-length", b"transfer-encoding")]
        return b"POST / HTTP/1.1\r\n" + b"".join(b"%s: %s\r\n" % one for one in framing) + b"\r\n"

    def on_url(self, url: bytes) -> None:
        """A part of the request's line."""
        if not self._resuming:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        if not self._resuming:
            super().on_header(name, value)

    def on_message_begin(self) -> None:
        """A head begins."""
        if self._resuming:
            return
        super().on_message_begin()
        self._in_head, self._in_body, self._head_bytes = True, False, None

    def on_headers_complete(self) -> None:
        """Begin the request, unless its head is too long."""
        if self._resuming:
            self._resuming = False
            return
        length = len(self.url) + sum(
            len(name) + len(value) + _HEADER_EXTRA_BYTES for name, value in self.headers
        )
        if length > self.limits.max_head_bytes:
            self._note_long_head()
            raise _HeadTooLongError  # the parser stops, and asks for the refusal that was noted
        self._in_head, self._in_body = False, True
        super().on_headers_complete()
        if self._is_last and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The request is whole, unless its body is still taken for another protocol."""
        if self.parser.should_upgrade():
            return
        self._in_body = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read as a request, in OpenAI's shape, and close."""
        self._stop_waiting()
        if self.transport.is_closing():
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and (self._in_head or self.cycle.response_started):
            self.transport.close()  # a status now would be taken for the answer to the request before
            return
        status, code, message = self._refusal
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        body = msgspec.json.encode({"error": error})
        head = (
            b"date: %s\r\n"
            b"server: serac\r\n"
            b"content-type: application/json\r\n"
            b"connection: close\r\n"
            b"content-length: %d\r\n\r\n" % (formatdate(time.time(), usegmt=True).encode(), len(body))
        )
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()

    def _refuse_long_head(self) -> None:
        self._note_long_head()
        self.send_400_response("")

    def _note_long_head(self) -> None:
        limit = self.limits.max_head_bytes
        self._refusal = (
            431,
            "request_headers_too_long",
            f"request line and headers are longer than {limit:,} bytes; shorten them, or ask whoever runs the"
            " gateway to raise server.max_head_bytes",
        )

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._waiting = self.loop.call_later(seconds, self._waited_long_enough)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _waited_long_enough(self) -> None:
        self._waiting = None
        if self.flow.read_paused:  # it is we who do not read
            self._wait(self.limits.body_gap_timeout_s)
            return
        if not self._in_head and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()  # no request began, or its body is of no use any more
            return
        what = "head" if self._in_head else "body"
        self._refusal = (
            408,
            "request_timeout",
            f"the request's {what} did not come in time; send it in one go",
        )
        self.send_400_response("")


def bounded_http(limits: ServerConfig) -> type[BoundedHttpProtocol]:
    """The protocol with the limits of a configuration, for `uvicorn.Config(http=…)`."""
    return type("BoundedHttp", (BoundedHttpProtocol,), {"limits": limits})
