"""More connections than the process can serve: idle ones give way, and whoever has a request is served."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from serac_gateway.config.model import ServerConfig
from serac_gateway.server.connections import connection_limit
from tests.http.listening import listening

LIMIT = 8
GET = b"GET / HTTP/1.1\r\nhost: gateway\r\n\r\n"
POST_BEGUN = b"POST / HTTP/1.1\r\nhost: gateway\r\ncontent-length: 100\r\n\r\n{"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class SlowApp:
    """Reads the whole request, and answers when `free` is set."""

    def __init__(self) -> None:
        self.free = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - raw ASGI
        if scope["type"] != "http":
            return
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            return
        await self.free.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def limited(app: SlowApp) -> AsyncIterator[AsyncExitStack]:
    """A server with a limit; the stack closes the test's connections."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = ServerConfig(max_connections=LIMIT)
    async with listening(app, listener, config, lifespan="off") as url, AsyncExitStack() as stack:
        stack.port = int(url.rpartition(":")[2])  # type: ignore[attr-defined]
        yield stack


async def connect(stack: AsyncExitStack, sent: bytes = b"") -> Connection:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)  # type: ignore[attr-defined]
    stack.callback(writer.close)
    writer.write(sent)
    await writer.drain()
    return reader, writer


async def all_sent(connection: Connection) -> bytes:
    return await asyncio.wait_for(connection[0].read(), 5)


async def status_of(connection: Connection) -> bytes:
    return await asyncio.wait_for(connection[0].readuntil(b"ok"), 5)


async def test_connections_that_send_nothing_give_way_to_requests(caplog: pytest.LogCaptureFixture) -> None:
    """Clients that only connect, or begin a head and stop, cannot keep anybody out."""
    app = SlowApp()
    app.free.set()
    with caplog.at_level(logging.WARNING):
        async with limited(app) as stack:
            idle = [await connect(stack, GET[:5] if number % 2 else b"") for number in range(5 * LIMIT)]
            assert (await status_of(await connect(stack, GET))).startswith(b"HTTP/1.1 200")
            assert await all_sent(idle[0]) == b""
            open_ones = [connection for connection in idle if not connection[0].at_eof()]
            assert len(open_ones) <= LIMIT
    lines = [record.message for record in caplog.records if "connections are open" in record.message]
    assert len(lines) == 1  # one line, not one for each connection
    assert f"the limit is {LIMIT}" in lines[0]


async def test_kept_connections_give_way_after_those_that_sent_nothing() -> None:
    """A client's kept connection is worth more than one on which nothing ever came."""
    app = SlowApp()
    app.free.set()
    async with limited(app) as stack:
        kept = await connect(stack, GET)
        await status_of(kept)
        for _ in range(3 * LIMIT):
            await connect(stack)
        kept[1].write(GET)
        assert (await status_of(kept)).startswith(b"HTTP/1.1 200")


async def test_a_body_that_has_not_arrived_gives_way_with_a_reply() -> None:
    app = SlowApp()
    async with limited(app) as stack:
        unfinished = [await connect(stack, POST_BEGUN) for _ in range(LIMIT)]
        await asyncio.sleep(0.05)
        asking = await connect(stack, GET)
        reply = await all_sent(unfinished[0])
        head, _, body = reply.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"\r\nretry-after: 2" in head
        assert json.loads(body)["error"]["code"] == "too_many_connections"
        app.free.set()
        assert (await status_of(asking)).startswith(b"HTTP/1.1 200")


async def test_a_response_that_is_due_is_never_given_up_and_a_few_more_are_served() -> None:
    """With every connection in use a probe still gets its answer; far beyond the limit nobody is let in."""
    app = SlowApp()
    async with limited(app) as stack:
        busy = [await connect(stack, GET) for _ in range(LIMIT)]
        await asyncio.sleep(0.05)
        more = [await connect(stack, GET) for _ in range(64)]
        await asyncio.sleep(0.05)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await status_of(await connect(stack, GET))
        app.free.set()
        for connection in (*busy, *more):
            assert (await status_of(connection)).startswith(b"HTTP/1.1 200")


def test_the_limit_leaves_files_for_store_and_upstream(caplog: pytest.LogCaptureFixture) -> None:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = connection_limit(None).maximum
    assert 2 * allowed < files
    assert connection_limit(10).maximum == 10
    assert connection_limit(10 * files).maximum == allowed
    assert f"server.max_connections is {10 * files}" in caplog.text


def test_the_soft_limit_on_files_is_raised_to_the_hard_one() -> None:
    """A login shell's soft limit of 1,024 would let 400 clients take the whole gateway."""
    code = (
        "import resource; from serac_gateway.server.connections import raise_file_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2048)); raise_file_limit()\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE)); raise_file_limit()"
    )
    child = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert child.stdout.split() == ["2048", "2048"]
