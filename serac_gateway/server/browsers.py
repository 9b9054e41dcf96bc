"""Applies the policy for web pages to every request.

Refuses requests of foreign pages, answers preflights, and adds CORS headers.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Message, Receive, Scope, Send

from serac_gateway.auth.origins import OriginPolicy, Surface, is_preflight
from serac_gateway.console.paths import is_console_path
from serac_gateway.control_plane.http.problems import PROBLEM_MEDIA_TYPE, problem
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.paths import is_data_plane_path
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import ForeignHostError, ForeignOriginError, GatewayError, error_headers

log = logging.getLogger(__name__)

ServeData = Callable[[Scope, Receive, Send, GatewayError | None], Awaitable[None]]
"""Serves a request of the data plane; with an error it refuses it instead."""
ServeControl = Callable[[Scope, Receive, Send], Awaitable[None]]

_OPEN_PREFIXES = ("/health", "/serac/schema")
_MAX_LOGGED = 100


class BrowserGuard:
    """Stands in front of both planes of one configuration."""

    def __init__(self, policy: OriginPolicy) -> None:
        self._policy = policy
        self._logged: set[str] = set()

    async def serve(
        self, scope: Scope, receive: Receive, send: Send, *, data: ServeData, control: ServeControl
    ) -> None:
        """Serve a request with the plane that its path belongs to, unless the policy refuses it."""
        if scope["type"] != ScopeType.HTTP:
            await data(scope, receive, send, None)
            return
        headers = cast("Headers", scope["headers"])
        surface = surface_of(scope["path"])
        refusal: GatewayError | None = None
        try:
            if self._policy.has_cors and is_preflight(scope["method"], headers):
                allowed = self._policy.preflight_headers(headers, surface)
                await _respond(scope, receive, send, 204, allowed)
                return
            self._policy.check(headers, surface)
        except (ForeignHostError, ForeignOriginError) as error:
            self._log_once(error)
            refusal = error
        if self._policy.has_cors:
            send = self._with_cors(send, headers, surface)
        if surface is Surface.DATA:
            await data(scope, receive, send, refusal)
        elif refusal is None:
            await control(scope, receive, send)
        else:
            await send_problem(Exchange(scope, receive, send), refusal)

    def _with_cors(self, send: Send, request: Headers, surface: Surface) -> Send:
        async def send_with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                reply = self._policy.reply_headers(request, list(message["headers"]), surface)
                message["headers"] = list(reply)
            await send(message)

        return send_with_cors

    def _log_once(self, error: GatewayError) -> None:
        """A page's developer cannot read the refusal in a browser; its operator can read the log."""
        if error.message not in self._logged and len(self._logged) < _MAX_LOGGED:
            self._logged.add(error.message)
            log.warning("%s (logged once)", error.message)


def surface_of(path: str) -> Surface:
    """What a percent-decoded path belongs to."""
    if is_data_plane_path(path):
        return Surface.DATA
    if is_console_path(path):
        return Surface.CONSOLE
    if any(path == prefix or path.startswith(f"{prefix}/") for prefix in _OPEN_PREFIXES):
        return Surface.OPEN
    return Surface.CONTROL


async def send_problem(exchange: Exchange, error: GatewayError) -> None:
    """Send `error` as a problem, unless the response has begun."""
    if exchange.status is not None:
        return  # too late for an error response: the server closes the connection
    status, body = problem(error)
    headers = [
        (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
        *((name.encode(), value.encode()) for name, value in error_headers(status, error.details).items()),
    ]
    await exchange.respond(status, headers, msgspec.json.encode(body))


async def _respond(scope: HTTPScope, receive: Receive, send: Send, status: int, headers: Headers) -> None:
    exchange = Exchange(scope, receive, send)
    await exchange.start(status, [*exchange.own_headers(), *headers])
    await exchange.finish()
