"""A minimal HTTP client for loads: requests are prepared bytes, replies are read only for their times.

An HTTP library would take more CPU than the measured proxy.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Self, cast
from urllib.parse import urlsplit

import msgspec

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_ROUTE = re.compile(rb"\r\nx-serac-route:\s*(\w+)", re.IGNORECASE)
_STAMP = re.compile(rb'"sent_s": ?([\d.]+)')
_CHUNKED_END = b"\r\n0\r\n\r\n"


class BenchError(Exception):
    """A measured server cannot be reached, or does not answer as it should, as the message says."""


class Reply(msgspec.Struct, kw_only=True):
    """Status, head and times of a reply."""

    status: int
    begun_s: float
    """When the request was written; all times are of `time.perf_counter`."""
    first_byte_s: float
    ended_s: float
    arrivals_s: list[float]
    """Arrival of every server-sent event; events of one read share a time."""
    stamps_s: list[float] = []
    """When the mock sent each event, if its events are stamped; on one machine both share a clock."""
    head: bytes = b""
    """Status line and headers."""

    @property
    def latency_ms(self) -> float:
        """From the request to the reply's last byte."""
        return (self.ended_s - self.begun_s) * 1_000

    @property
    def first_byte_ms(self) -> float:
        """From the request to the reply's first byte."""
        return (self.first_byte_s - self.begun_s) * 1_000

    @property
    def route(self) -> str | None:
        """The route of the request in the reply of a gateway; None without such a header."""
        match = _ROUTE.search(self.head)
        return None if match is None else match[1].decode("latin-1")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A server with OpenAI's API."""

    url: str
    """Up to and with /v1."""
    headers: Mapping[str, str] = {}

    def chat(self, question: str, *, padding_bytes: int = 0, **parameters: object) -> bytes:
        """The bytes of a chat request; an earlier assistant message of `padding_bytes` makes it longer."""
        messages = [{"role": "user", "content": question}]
        if padding_bytes:
            messages.insert(0, {"role": "assistant", "content": "x" * padding_bytes})
        path = f"{urlsplit(self.url).path}/chat/completions"
        return self.post(path, {"model": "mock", "messages": messages, **parameters})

    def post(self, path: str, content: object) -> bytes:
        """The bytes of a POST of `content` as JSON."""
        body = msgspec.json.encode(content)
        headers = {
            "host": urlsplit(self.url).netloc,
            "content-type": "application/json",
            "content-length": str(len(body)),
            **self.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


class Connection(asyncio.Protocol):
    """A keep-alive connection; one request at a time."""

    def __init__(self) -> None:
        """Not connected yet; `open` connects."""
        self._transport: asyncio.Transport | None = None
        self._reply: Reply | None = None
        self._done: asyncio.Future[Reply] | None = None
        self._received = bytearray()
        self._whole: int | None = None

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect to the host of `url`.

        Raises:
            BenchError: It cannot be reached.
        """
        address = urlsplit(url)
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                cls, address.hostname or "", address.port or 80
            )
        except OSError as exc:
            raise BenchError(f"cannot reach {url!r}: {exc.strerror or exc}; is it running?") from exc
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(BenchError("the connection was closed before the reply had ended"))
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        now, reply = time.perf_counter(), self._reply
        if reply is None:
            return
        if not self._received:
            reply.first_byte_s = now
        self._received += data
        reply.arrivals_s.extend([now] * data.count(b"data: "))
        if self._whole is None and (end := self._received.find(_HEAD_END)) >= 0:
            reply.status = int(self._received[9:12])
            reply.head = bytes(self._received[: end + 2])
            length = _LENGTH.search(reply.head)
            self._whole = end + len(_HEAD_END) + int(length[1]) if length else -1
        if self._whole is None:
            return
        if len(self._received) >= self._whole > 0 or (
            self._whole < 0 and self._received.endswith(_CHUNKED_END)
        ):
            reply.ended_s = now
            if reply.arrivals_s:
                reply.stamps_s = [float(stamp) for stamp in _STAMP.findall(self._received)]
            if self._done is not None and not self._done.done():
                self._done.set_result(reply)

    async def ask(self, request: bytes, *, timeout_s: float = 60.0) -> Reply:
        """Send a request, and wait for the end of its reply.

        Raises:
            BenchError: No reply came in time, or the connection was closed.
        """
        done = self.begin(request)
        try:
            async with asyncio.timeout(timeout_s):
                return await done
        except TimeoutError:
            raise BenchError(f"no whole reply came within {timeout_s:g} s") from None

    def begin(self, request: bytes) -> asyncio.Future[Reply]:
        """Send a request; the future is done when its reply has ended."""
        if self._transport is None:
            raise BenchError("the connection was closed")
        self._received.clear()
        self._whole = None
        now = time.perf_counter()
        self._reply = Reply(status=0, begun_s=now, first_byte_s=now, ended_s=now, arrivals_s=[])
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._done

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None

    def close(self) -> None:
        """Close the connection; an incomplete reply is discarded."""
        if self._done is not None:
            self._done.cancel()
        if self._transport is not None:
            self._transport.abort()
