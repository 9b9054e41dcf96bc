"""How connections end when the server shuts down."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator

import pytest
from litestar.types import Receive, Scope, Send

from serac_gateway.config.model import ServerConfig
from serac_gateway.server.listener import Server, uvicorn_config
from tests.http.wire import connected, eventually, read_body, read_head

REQUEST = b"GET /health/live HTTP/1.1\r\nhost: gateway\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, str]]:
    server = Server(uvicorn_config(app, ServerConfig(), lifespan="off"))
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    yield server, url
    server.handle_exit(signal.SIGTERM, None)
    await running


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[str]:
    """The response's `connection` headers."""
    writer.write(REQUEST)
    response = await read_head(reader)
    await read_body(reader, response)
    return response.all("connection")


async def refuses(url: str) -> bool:
    try:
        async with connected(url):
            return False
    except ConnectionRefusedError:
        return True


async def test_a_request_that_was_on_its_way_is_answered_with_connection_close(
    server: tuple[Server, str],
) -> None:
    running, url = server
    async with connected(url) as fresh, connected(url) as kept, connected(url) as unused:
        assert await ask(*kept) == []
        running.handle_exit(signal.SIGTERM, None)
        async with asyncio.timeout(5):
            while not await refuses(url):
                await asyncio.sleep(0.01)
        assert await ask(*fresh) == ["close"]
        assert await ask(*kept) == ["close"]
        for reader, _ in (fresh, kept, unused):
            assert await asyncio.wait_for(reader.read(), 5) == b""
