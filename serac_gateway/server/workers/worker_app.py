"""A worker's ASGI application: serves the data plane, and relays every other path to the model process."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send

from serac_gateway.data_plane.engine_access import POSITION_HEADER, SECRET_HEADER, TOKEN_HEADER
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.data_plane.relay import relay
from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest
from serac_gateway.data_plane.upstream.headers import end_to_end
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import BodyMemoryError, ModelUnavailableError, UpstreamError
from serac_gateway.server.browsers import BrowserGuard, send_problem
from serac_gateway.server.workers.rpc_messages import HOST_HEADER

log = logging.getLogger(__name__)

_HOST = HOST_HEADER.encode()
_POSITION = POSITION_HEADER.encode()
_NEVER_RELAYED = frozenset({TOKEN_HEADER.encode(), SECRET_HEADER.encode(), _HOST})
_WHOLE_BODY_BYTES = 0
"""Bodies are streamed: an import reports on its first line before the client has sent the second."""


class WorkerApp:
    """The application. Lifespan events are not for it: run uvicorn with `lifespan="off"`."""

    def __init__(
        self,
        data_plane: DataPlane,
        control_plane: Upstream,
        browser_guard: BrowserGuard,
        *,
        behind: str = "the model process",
        added_headers: Headers = (),
        before_reply: Callable[[Headers], Awaitable[None]] | None = None,
    ) -> None:
        """Other paths go to `control_plane`, with `added_headers`; it is called `behind` in errors.

        `before_reply` is awaited with the headers of each of its replies before that is relayed.
        """
        self._data_plane = data_plane
        self._control_plane = control_plane
        self._browser_guard = browser_guard
        self._behind = behind
        self._added_headers = added_headers
        self._before_reply = before_reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        await self._browser_guard.serve(
            scope, receive, send, data=self._data_plane, control=self._serve_control
        )

    async def _serve_control(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._relay(scope, receive, send)

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
                        *self._added_headers,
                    ],
                    body=await exchange.read_body(_WHOLE_BODY_BYTES),
                )
                async with self._control_plane.send(request) as response:
                    if self._before_reply is not None:
                        await self._before_reply(response.headers)
                    own = [
                        header
                        for header in response.headers
                        if header[0].startswith(b"x-serac-") and header[0] != _POSITION
                    ]
                    await relay(response, exchange, own)
            except BodyMemoryError as error:
                await send_problem(exchange, error)
            except UpstreamError as error:
                log.warning("%s was not relayed: %s", scope["path"], error.message)
                unavailable = ModelUnavailableError(f"{self._behind} does not answer; try again")
                await send_problem(exchange, unavailable)
