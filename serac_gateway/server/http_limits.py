"""uvicorn's HTTP protocol with limits on the size and the time of an incomplete request.

uvicorn by itself buffers a head of any length and waits for its end without a limit. It also serves HTTP/0.9
and requests with several Host headers, and drops a valid request when garbage follows it on the connection.
"""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, cast

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from serac_gateway.config.model import ServerConfig
from serac_gateway.domain.body_budget import EXTENSION, BodyBudget
from serac_gateway.errors import RETRY_AFTER_S, BodyMemoryError
from serac_gateway.server.body_memory import BodyMemoryLog
from serac_gateway.server.connections import ConnectionLimit, SlowRequestLog, connection_limit

_LINGER_S = 5.0
_HEADER_EXTRA_BYTES = 4
"""": " and the end of the line."""


class _HeadRefusedError(Exception):
    """Raised in a callback of the parser, which then stops; the refusal is noted before."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection. A request over a limit is answered with 408 or 431, and the connection is closed."""

    limits = ServerConfig()
    connection_limit: ConnectionLimit | None = None
    """None: any number of connections."""
    slow_requests = SlowRequestLog()
    body_budget = BodyBudget(None)
    """Its accounts are closed by `body_memory.closing_accounts`."""

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
        """Bytes of an incomplete head, counted from the read after the one in which it began."""
        self._is_last = False
        """Whether the connection closes after the next response."""
        self._resuming = False
        """Whether a new parser is being fed a head that an earlier parser has read."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_refused = False
        """Whether what follows on the connection is not read any more; the refusal may still be due."""
        self._refusal = (400, "bad_request", "the request is not valid HTTP/1.1")
        self._lingers = False
        """Whether a refusal is followed by _LINGER_S in which the client may go on sending."""
        self._body = self.body_budget.open()
        """The account of the body that arrives, or arrived last."""
        self.since_s = time.monotonic()
        """When the connection was made, by the monotonic clock."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Allow as much time for the first byte as for a head."""
        super().connection_made(transport)
        self._start_timer(self.limits.head_timeout_s)
        if self.connection_limit is not None:
            self.connection_limit.admit(self, cast("set[LimitedHttpProtocol]", self.connections))

    def idleness(self) -> int | None:
        """How little is lost if the connection is closed: see `LimitedConnection`.

        0: no request has come whole in its head; 1: the next one has not; 2: a body has not arrived.
        """
        cycle = self.cycle
        if cycle is None:
            return 0
        if cycle.response_complete:
            return 1
        return 2 if self._in_body and not cycle.response_started else None

    def close_to_make_room(self) -> None:
        """Close the connection; a request whose body has not arrived is answered with 503."""
        if self.idleness() != 2:
            self._cancel_timer()
            self.transport.close()
            return
        self._refusal = (
            503,
            "too_many_connections",
            "the gateway has too many connections, and this request's body had not arrived; try again",
        )
        self.send_400_response("")

    def _give_up_body(self) -> None:
        """Refuse the request whose body is arriving: the bodies of all requests need too much memory."""
        self._refusal = (
            HTTPStatus.SERVICE_UNAVAILABLE,
            BodyMemoryError.code,
            "the gateway holds too many large request bodies, and this one had not arrived; try again",
        )
        self._lingers = True
        self.send_400_response("")
        if self.cycle is not None:  # the application is to let go of the body at once
            self.cycle.disconnected = True
            self.cycle.body = bytearray()
            self.cycle.message_event.set()

    def abort(self) -> None:
        """Close the connection at once."""
        self._cancel_timer()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timer."""
        self._cancel_timer()
        super().connection_lost(exc)

    def close_after_next_response(self) -> bool:
        """Close the connection after the next response that has not begun, and announce that in its head.

        Returns:
            Whether no such response is due yet: its request may still be on its way.
        """
        self._is_last = True
        if self.cycle is None or self.cycle.response_complete:
            return True
        if not self.cycle.response_started:
            self.cycle.keep_alive = False
        return self.cycle.keep_alive

    def data_received(self, data: bytes) -> None:
        """Read on; the time for a head counts from its first byte, the time for a body from its latest."""
        if self._is_refused:
            return
        was_in_head = self._in_head
        self._unset_keepalive_if_required()
        self._feed(data)
        if self.transport.is_closing() or self._is_refused:
            self._cancel_timer()
        elif self._in_head:
            # Bytes read together with the head's first byte may belong to earlier requests; at most one read.
            self._head_bytes = 0 if self._head_bytes is None else self._head_bytes + len(data)
            if self._head_bytes > self.limits.max_head_bytes:
                self._refuse_long_head()
            elif not was_in_head or self._timer is None:
                self._start_timer(self.limits.head_timeout_s)
        elif self._in_body:
            self._start_timer(self.limits.body_gap_timeout_s)
        else:
            self._cancel_timer()

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
        """A head for a new parser, after a head that asked for an upgrade, as Java's client does to HTTP/2.

        The parser takes the bytes after such a head for the other protocol's, and uvicorn drops them. A
        server may ignore an upgrade (RFC 9110, section 7.8): the new parser reads the body, and this head
        gives it the body's length.
        """
        self.parser = httptools.HttpRequestParser(self)
        self._resuming = True
        framing = [
            header for header in self.headers if header[0] in (b"content-length", b"transfer-encoding")
        ]
        return b"POST / HTTP/1.1\r\n" + b"".join(b"%s: %s\r\n" % header for header in framing) + b"\r\n"

    def on_url(self, url: bytes) -> None:
        """A piece of the request line."""
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
        """Begin the request, unless its head is refused."""
        if self._resuming:
            self._resuming = False
            return
        length, hosts = len(self.url), 0
        for name, value in self.headers:  # one pass, not by generators: every request comes through here
            length += len(name) + len(value) + _HEADER_EXTRA_BYTES
            hosts += name == b"host"
        if length > self.limits.max_head_bytes:
            self._note_long_head()
            raise _HeadRefusedError
        self._check_version_and_host(hosts)
        self._in_head, self._in_body = False, True
        self._body = self.body_budget.open(self._give_up_body)
        self.scope["extensions"] = {EXTENSION: cast("Any", self._body)}
        super().on_headers_complete()
        if self._is_last and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The request is complete, unless the parser takes its body for another protocol."""
        if self.parser.should_upgrade():
            return
        self._in_body = self._body.is_arriving = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start the next request of the connection, or send the refusal that waited for this response."""
        was_last = not self.pipeline
        super().on_response_complete()
        if self._is_refused and was_last and not self.transport.is_closing():
            self._send_refusal()

    def send_400_response(self, msg: str) -> None:
        """Refuse an unreadable request and read no further.

        The valid requests before it on the connection are answered first: a status now would be taken for the
        answer to one of them.
        """
        self._cancel_timer()
        if self.transport.is_closing() or self._is_refused:
            return
        self._is_refused = True
        latest = self.cycle
        if latest is None or latest.response_complete:
            self._send_refusal()
        elif self._in_body and self.pipeline:
            self.pipeline.popleft()  # the unreadable one, which has not begun; earlier ones are under way
        elif self._in_body and latest.response_started:
            self.transport.close()
        elif self._in_body:
            self._send_refusal()

    def _send_refusal(self) -> None:
        """Send the noted refusal, an error of OpenAI's shape, and close."""
        self._unset_keepalive_if_required()
        status, code, message = self._refusal
        is_ours = status == HTTPStatus.SERVICE_UNAVAILABLE
        kind = "server_error" if is_ours else "invalid_request_error"
        error = {"message": message, "type": kind, "param": None, "code": code}
        body = msgspec.json.encode({"error": error})
        head = (
            b"date: %s\r\n"
            b"server: serac\r\n"
            b"content-type: application/json\r\n"
            b"connection: close\r\n"
            b"%s"
            b"content-length: %d\r\n\r\n"
            % (
                formatdate(time.time(), usegmt=True).encode(),
                b"retry-after: %d\r\n" % RETRY_AFTER_S if is_ours else b"",
                len(body),
            )
        )
        self.transport.write(STATUS_LINE[status] + head + body)
        if not self._lingers:
            self.transport.close()
            return
        self.flow.resume_reading()  # what comes is dropped: a client that is reset would lose the reply
        self._timer = self.loop.call_later(_LINGER_S, self.transport.close)

    def _refuse_long_head(self) -> None:
        self._note_long_head()
        self.send_400_response("")

    def _note_long_head(self) -> None:
        limit = self.limits.max_head_bytes
        self._refusal = (
            431,
            "request_headers_too_long",
            f"request line and headers are longer than {limit:,} bytes; shorten them, or have"
            " the operator raise server.max_head_bytes",
        )

    def _check_version_and_host(self, hosts: int) -> None:
        """Refuse what two readers could take for requests to different hosts, and versions without a host.

        Raises:
            _HeadRefusedError: The version is not HTTP/1.x, or there is not one Host header (RFC 9112, 3.2).
        """
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._refusal = (505, "http_version", f"HTTP/{version} is not served here; send HTTP/1.1")
            raise _HeadRefusedError
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            self._refusal = (400, "bad_request", f"the request has {hosts} Host headers; send one")
            raise _HeadRefusedError

    def _start_timer(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = self.loop.call_later(seconds, self._on_timeout)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        self._timer = None
        if self.flow.read_paused:  # the gateway does not read, so the client cannot send
            self._start_timer(self.limits.body_gap_timeout_s)
            return
        if not self._in_head and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()  # no request began, or its body is no longer needed
            return
        section = "head" if self._in_head else "body"
        self.slow_requests.note(section)
        self._refusal = (
            408,
            "request_timeout",
            f"the request's {section} did not arrive in time; send it in one go",
        )
        self.send_400_response("")


def limited_http_protocol(limits: ServerConfig) -> type[LimitedHttpProtocol]:
    """The protocol with the limits of `limits`, for `uvicorn.Config(http=…)`; one for each server."""
    return type(
        "LimitedHttp",
        (LimitedHttpProtocol,),
        {
            "limits": limits,
            "connection_limit": connection_limit(limits.max_connections),
            "slow_requests": SlowRequestLog(),
            "body_budget": BodyBudget(limits.max_body_memory_bytes, BodyMemoryLog(limits)),
        },
    )
