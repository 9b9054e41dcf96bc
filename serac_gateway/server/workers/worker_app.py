"""A worker's ASGI application: serves the data plane, and relays every other path to the model process."""

from __future__ import annotations

import logging

import msgspec
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Receive, Scope, Send

from serac_gateway.control_plane.http.problems import PROBLEM_MEDIA_TYPE, problem
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.paths import is_data_plane_path
from serac_gateway.data_plane.relay import relay
from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest
from serac_gateway.data_plane.upstream.headers import end_to_end
from serac_gateway.errors import GatewayError, ModelUnavailableError, UpstreamError, error_headers
from serac_gateway.server.listener import Asgi
from serac_gateway.server.workers.rpc_messages import TOKEN_HEADER

log = logging.getLogger(__name__)

_NEVER_RELAYED = frozenset({TOKEN_HEADER.encode()})
_WHOLE_BODY_BYTES = 0
"""Bodies are streamed: an import reports on its first line before the client has sent the second."""


class WorkerApp:
    """The application. Lifespan events are not for it: run uvicorn with `lifespan="off"`."""

    def __init__(self, data_plane: Asgi, control_plane: Upstream) -> None:
        self._data_plane = data_plane
        self._control_plane = control_plane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if is_data_plane_path(scope["path"]):
            await self._data_plane(scope, receive, send)
        elif scope["type"] == ScopeType.HTTP:
            await self._relay(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "no websockets here"})

    async def _relay(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        query: bytes = scope["query_string"]
        exchange = Exchange(scope, receive, send)
        async with exchange:
            try:
                request = UpstreamRequest(
                    method=exchange.method,
                    target=scope["raw_path"] + (b"?" + query if query else b""),
                    headers=end_to_end(exchange.headers, without=_NEVER_RELAYED),
                    body=await exchange.read_body(_WHOLE_BODY_BYTES),
                )
                async with self._control_plane.send(request) as response:
                    own = [header for header in response.headers if header[0].startswith(b"x-serac-")]
                    await relay(response, exchange, own)
            except UpstreamError as error:
                log.warning("%s was not relayed: %s", scope["path"], error.message)
                await _refuse(exchange, ModelUnavailableError("the model process does not answer; try again"))


async def _refuse(exchange: Exchange, error: GatewayError) -> None:
    if exchange.status is not None:
        return  # too late for an error response: the server closes the connection
    status, body = problem(error)
    headers = [
        (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
        *((name.encode(), value.encode()) for name, value in error_headers(status, error.details).items()),
    ]
    await exchange.respond(status, headers, msgspec.json.encode(body))
