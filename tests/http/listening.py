"""Serves an ASGI application in the test's own event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

import uvicorn
from litestar import Litestar

from serac_gateway.config.model import ServerConfig
from serac_gateway.server.body_memory import Asgi, closing_accounts
from serac_gateway.server.http_limits import limited_http_protocol


class _Server(uvicorn.Server):
    """Ends at once when requested, not at the next tenth of a second: a thousand tests have one each."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._end_requested = asyncio.Event()

    def end(self) -> None:
        self.should_exit = True
        self._end_requested.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._end_requested.wait(), 0.1)


@asynccontextmanager
async def listening(
    app: Asgi | Litestar,
    listener: socket.socket,
    limits: ServerConfig,
    *,
    lifespan: Literal["auto", "off"] = "auto",
) -> AsyncIterator[str]:
    """Yields the URL, if `listener` has a port."""
    server = _Server(
        uvicorn.Config(
            closing_accounts(app),
            http=limited_http_protocol(limits),
            lifespan=lifespan,
            log_config=None,
            proxy_headers=bool(limits.trusted_proxies),
            forwarded_allow_ips=list(limits.trusted_proxies),
            ws="none",
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}" if listener.family == socket.AF_INET else ""
    finally:
        server.end()
        await running
