"""A base model with fixed replies, sent at once: the upstream of proxy measurements.

Run as ``python -m serac_gateway.cli.bench.mock_upstream --port 18080`` it serves until it is ended. A chat
request gets one fixed completion; with ``"stream": true`` the same as server-sent events; with
``"idle": true`` a stream that begins and then says nothing until the client leaves. ``"delay_ms": 50`` and
``"events": 2`` stand for the options of these names; with ``"stamped": true`` every event tells when it was
sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
import time
from typing import cast

import msgspec

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_STREAMED = re.compile(rb'"stream"\s*:\s*true')
_STAMPED = re.compile(rb'"stamped"\s*:\s*true')
_DELAY_MS = re.compile(rb'"delay_ms"\s*:\s*(\d+)')
_EVENTS = re.compile(rb'"events"\s*:\s*(\d+)')
_IDLE = re.compile(rb'"idle"\s*:\s*true')
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
_LAST_CHUNK = b"0\r\n\r\n"
_COMMON = {"id": "chatcmpl-mock", "created": 1_700_000_000, "model": "mock"}


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """The speed of the mock's replies."""

    delay_s: float = 0.0
    """Delay before the first byte of a reply."""
    events: int = 32
    """Number of events of a streamed reply."""
    gap_s: float = 0.0
    """Pause between two events."""


class MockUpstream(asyncio.Protocol):
    """One connection: requests one after the other; bodies need a content-length."""

    def __init__(self, pace: Pace) -> None:
        """Replies at the speed of `pace`."""
        self._pace = pace
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is not a subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._transport = None
        if self._answering is not None:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._received += data
        while (end := self._received.find(_HEAD_END)) >= 0:
            length = _LENGTH.search(self._received, 0, end + 2)
            whole = end + len(_HEAD_END) + (int(length[1]) if length else 0)
            if len(self._received) < whole:
                return
            body = bytes(self._received[end + len(_HEAD_END) : whole])
            del self._received[:whole]
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        assert self._transport is not None
        delay_ms = _DELAY_MS.search(body)
        delay_s = self._pace.delay_s if delay_ms is None else int(delay_ms[1]) / 1_000
        if delay_s == 0 and not _STREAMED.search(body):
            self._transport.write(_WHOLE)
        else:
            self._answering = asyncio.ensure_future(self._answer_slowly(body, delay_s))

    async def _answer_slowly(self, body: bytes, delay_s: float) -> None:
        if delay_s:
            await asyncio.sleep(delay_s)
        if not _STREAMED.search(body):
            self._write(_WHOLE)
            return
        event = _stamped_event if _STAMPED.search(body) else _plain_event
        self._write(_STREAM_HEAD + event())
        if _IDLE.search(body):
            return
        events = _EVENTS.search(body)
        for _ in range((self._pace.events if events is None else int(events[1])) - 1):
            if self._pace.gap_s:
                await asyncio.sleep(self._pace.gap_s)
            self._write(event())
        self._write(_DONE + _LAST_CHUNK)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _whole() -> bytes:
    message = {"role": "assistant", "content": "The sea is wide and grey this morning."}
    body = json.dumps(
        _COMMON
        | {
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        | {"usage": {"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21}}
    ).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event_data() -> bytes:
    choices = [{"index": 0, "delta": {"content": " sea"}, "finish_reason": None}]
    return json.dumps(_COMMON | {"object": "chat.completion.chunk", "choices": choices}).encode()


_WHOLE, _EVENT_DATA, _DONE = _whole(), _event_data(), _chunk(b"data: [DONE]\n\n")
_EVENT = _chunk(b"data: %b\n\n" % _EVENT_DATA)


def _plain_event() -> bytes:
    return _EVENT


def _stamped_event() -> bytes:
    return _chunk(b'data: %b, "sent_s": %.6f}\n\n' % (_EVENT_DATA[:-1], time.perf_counter()))


async def serve(host: str, port: int, pace: Pace) -> None:
    """Serve until SIGTERM or SIGINT; prints the port once it listens."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    server = await loop.create_server(lambda: MockUpstream(pace), host, port, backlog=4_096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await ended.wait()
    server.close()


def main() -> None:
    """Read the command line and serve."""
    import uvloop

    parser = argparse.ArgumentParser(description="A base model with fixed replies, sent at once.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=18_080, help="0: any")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="before the first byte of an answer")
    parser.add_argument("--events", type=int, default=32, help="of a streamed answer")
    parser.add_argument("--gap-ms", type=float, default=0.0, help="between two of them")
    given = parser.parse_args()
    pace = Pace(delay_s=given.delay_ms / 1_000, events=given.events, gap_s=given.gap_ms / 1_000)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(given.host, given.port, pace))


if __name__ == "__main__":
    main()
