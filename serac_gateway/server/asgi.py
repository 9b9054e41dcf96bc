"""The gateway's ASGI application, which uvicorn calls for every request."""

from __future__ import annotations

from functools import partial
from typing import cast

from litestar.types import (
    LifeSpanReceive,
    LifeSpanScope,
    LifeSpanSend,
    Receive,
    Scope,
    Send,
)

from serac_gateway.console.paths import is_console_path
from serac_gateway.console.planes import Asgi, Planes, serving_console_with
from serac_gateway.control_plane.http.colon_paths import ColonPaths
from serac_gateway.control_plane.http.dependencies import serving_with
from serac_gateway.server.runtime import Runtime, Runtimes


class GatewayApp:
    """Dispatches by path.

    /v1 and /openai are the data plane's, /console the console's, every other path the control plane's. A
    request is served by the runtime that is current when it begins; the runtime stays open until the request
    has ended. The server's lifespan events are the control plane's.
    """

    def __init__(self, runtimes: Runtimes, control_plane: ColonPaths, console: Asgi) -> None:
        self._runtimes = runtimes
        self._control_plane = control_plane
        self._console = console

    async def __call__(
        self,
        scope: Scope | LifeSpanScope,
        receive: Receive | LifeSpanReceive,
        send: Send | LifeSpanSend,
    ) -> None:
        """Serve a request, or the lifespan of the server."""
        if scope["type"] == "lifespan":
            await self._control_plane(scope, receive, send)
            return
        with self._runtimes.lease() as runtime:
            await runtime.browser_guard.serve(
                scope,
                cast("Receive", receive),
                cast("Send", send),
                data=runtime.data_plane,
                control=partial(self._serve_control, runtime),
            )

    async def serve_for_worker(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of another plane that a worker relays: it has checked the host and the page."""
        with self._runtimes.lease() as runtime:
            await self._serve_control(runtime, scope, receive, send)

    async def _serve_control(self, runtime: Runtime, scope: Scope, receive: Receive, send: Send) -> None:
        with serving_with(runtime.control_plane):
            if not (runtime.config.serves_console and is_console_path(scope["path"])):
                await self._control_plane(scope, receive, send)
                return
            planes = Planes(
                control=self._control_plane,
                data=runtime.data_plane,
                upstream=runtime.data_plane.upstream,
                config=runtime.config,
                hold=partial(self._runtimes.lease, runtime),
            )
            with serving_console_with(planes):
                await self._console(scope, receive, send)
