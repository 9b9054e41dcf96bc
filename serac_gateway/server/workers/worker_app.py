"""A worker's ASGI application: serves the data plane, and relays every other path to the model process."""

from __future__ import annotations

import logging

from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send

from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.data_plane.relay import relay
from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest
from serac_gateway.data_plane.upstream.headers import end_to_end
from serac_gateway.errors import BodyMemoryError, ModelUnavailableError, UpstreamError
from serac_gateway.server.browsers import BrowserGuard, send_problem
from serac_gateway.server.workers.rpc_messages import HOST_HEADER, TOKEN_HEADER

log = logging.getLogger(__name__)

_HOST = HOST_HEADER.encode()
_NEVER_RELAYED = frozenset({TOKEN_HEADER.encode(), _HOST})
_WHOLE_BODY_BYTES = 0
"""Bodies are streamed: an import reports on its first line before the client has sent the second."""


class WorkerApp:
    """The application. Lifespan events are not for it: run uvicorn with `lifespan="off"`."""

    def __init__(self, data_plane: DataPlane, control_plane: Upstream, browser_guard: BrowserGuard) -> None:
        self._data_plane = data_plane
        self._control_plane = control_plane
        self._browser_guard = browser_guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        await self._browser_guard.serve(scope, receive, send, data=self._data_plane, control=self._relay)

    async def _relay(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == ScopeType.HTTP
        query: bytes = scope["query_string"]
        exchange = Exchange(scope, receive, send)
        async with exchange:
            try:
                request = UpstreamRequest(
                    method=exchange.method,
                    target=scope["raw_path"] + (b"?" + query if query else b""),
                    headers=[
                        *end_to_end(exchange.headers, without=_NEVER_RELAYED),
                        *((_HOST, host) for host in exchange.all_of(b"host")),
                    ],
                    body=await exchange.read_body(_WHOLE_BODY_BYTES),
                )
                async with self._control_plane.send(request) as response:
                    own = [header for header in response.headers if header[0].startswith(b"x-serac-")]
                    await relay(response, exchange, own)
            except BodyMemoryError as error:
                await send_problem(exchange, error)
            except UpstreamError as error:
                log.warning("%s was not relayed: %s", scope["path"], error.message)
                unavailable = ModelUnavailableError("the model process does not answer; try again")
                await send_problem(exchange, unavailable)
