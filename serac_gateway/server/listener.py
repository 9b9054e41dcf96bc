"""Listens, serves until a signal comes, and drains."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from types import FrameType
from typing import Literal, cast

import msgspec
import uvicorn
from litestar import Litestar
from litestar.types import Receive, Scope, Send

from serac_gateway.config.model import ServerConfig
from serac_gateway.errors import ConfigError
from serac_gateway.server.http_limits import BoundedHttpProtocol, bounded_http
from serac_gateway.server.memory import freeze_gc
from serac_gateway.server.signals import Hangups

_KEEP_ALIVE_S = 90
"""Above the 60 s after which common load balancers close an idle connection themselves."""
_LINGER_S = 1.0
"""How long a connection without a request stays when no more are accepted."""
_LINGER_STEP_S = 0.02

OpenApp = Callable[[], AbstractAsyncContextManager[Litestar]]
WhenReady = Callable[[Litestar], Awaitable[None]]
OnHangup = Callable[[Litestar], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class Frontend(msgspec.Struct, frozen=True, kw_only=True):
    """What stands between the public socket and the app, if it is not this process (see workers/)."""

    app: Asgi
    """What this process serves."""
    listener: socket.socket
    """Where."""
    ready: Awaitable[None]
    """Done when the public socket is served; it raises why it is not."""
    drain: Callable[[], Awaitable[None]]
    """Stops serving the public socket; when it returns, the last request has ended. Idempotent."""
    force: Callable[[], None]
    """Ends the requests for which `drain` waits."""


OpenFrontend = Callable[[Litestar, socket.socket], AbstractAsyncContextManager[Frontend]]
"""Puts up what serves on the public socket."""


def serve_until_stopped(
    open_app: OpenApp,
    config: ServerConfig,
    *,
    when_ready: WhenReady,
    on_ready: Callable[[str], None] = lambda url: None,
    on_hangup: OnHangup | None = None,
    open_frontend: OpenFrontend | None = None,
) -> None:
    """Serve what `open_app` gives until SIGINT or SIGTERM; running answers may finish within the drain limit.

    The port is bound before `open_app` is entered. `on_ready` is told the URL when `when_ready` returns.
    SIGHUP calls `on_hangup` (see signals.py); without it, SIGHUP ends the process, the default. With
    `open_frontend` other processes serve on the port.

    Raises:
        ConfigError: The address is taken; also whatever `open_app` and `when_ready` raise.
    """
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(open_app, config, when_ready, on_ready, on_hangup, open_frontend))


def uvicorn_config(
    app: Asgi | Litestar, config: ServerConfig, *, lifespan: Literal["auto", "off"] = "auto"
) -> uvicorn.Config:
    """How uvicorn serves here.

    Raises:
        ConfigError: `server.trusted_proxies` holds what is no address or network.
    """
    return uvicorn.Config(
        app,
        http=bounded_http(config),
        lifespan=lifespan,
        log_level="warning",
        access_log=False,
        ws="none",
        proxy_headers=bool(config.trusted_proxies),
        forwarded_allow_ips=_checked_networks(config.trusted_proxies),
        server_header=False,
        date_header=False,  # the data plane passes the upstream's on, or adds its own
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(config.drain_timeout_s),
    )


def _checked_networks(proxies: Sequence[str]) -> list[str]:
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as exc:
            raise ConfigError(
                f"server.trusted_proxies holds {proxy!r}, which is no address and no network: {exc}; write"
                " 10.0.0.7 or 10.0.0.0/8",
                field="server.trusted_proxies",
            ) from exc
    return list(proxies)


class Server(uvicorn.Server):
    """Ends by itself on SIGINT or SIGTERM; uvicorn's own would raise the signal again, past our cleanup."""

    def __init__(self, config: uvicorn.Config, *, frontend: Frontend | None = None) -> None:
        """`frontend` is drained before the end."""
        super().__init__(config)
        self._frontend = frontend
        self._draining: asyncio.Task[None] | None = None

    @property
    def is_ending(self) -> bool:
        """Whether it was told to."""
        return self.should_exit or self._draining is not None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn: a second SIGINT hurries."""
        if self._frontend is None:
            super().handle_exit(sig, frame)
        elif self._draining is None:
            self._draining = asyncio.ensure_future(self._drain_and_exit(self._frontend, sig))
        elif sig == signal.SIGINT:
            self._frontend.force()

    async def _drain_and_exit(self, frontend: Frontend, sig: int) -> None:
        try:
            await frontend.drain()
        finally:
            super().handle_exit(sig, None)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn; but what is on its way on a connection without a request is still answered."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        until_s = time.monotonic() + _LINGER_S
        self._have_connections_end()
        await asyncio.sleep(_LINGER_STEP_S)  # some may have been accepted this very moment
        while self._have_connections_end() and time.monotonic() < until_s and not self.force_exit:
            await asyncio.sleep(_LINGER_STEP_S)
        await super().shutdown(sockets)

    def _have_connections_end(self) -> bool:
        """Whether one waits for its last request."""
        connections = cast("set[BoundedHttpProtocol]", self.server_state.connections)
        return any([one.end_with_next() for one in connections])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)


async def _serve(
    open_app: OpenApp,
    config: ServerConfig,
    when_ready: WhenReady,
    on_ready: Callable[[str], None],
    on_hangup: OnHangup | None,
    open_frontend: OpenFrontend | None,
) -> None:
    _checked_networks(config.trusted_proxies)  # before anything is opened
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(_listener(config)))
        hangups = Hangups()
        if on_hangup is not None:
            stack.enter_context(hangups.caught())
        app = await stack.enter_async_context(open_app())
        if on_hangup is not None:
            await stack.enter_async_context(hangups.answered(lambda: on_hangup(app)))
        frontend = (
            None if open_frontend is None else await stack.enter_async_context(open_frontend(app, listener))
        )
        served, own_listener = (app, listener) if frontend is None else (frontend.app, frontend.listener)
        server = Server(uvicorn_config(served, config), frontend=frontend)

        async def ready() -> None:
            if frontend is not None:
                await frontend.ready
            await when_ready(app)

        announcing = asyncio.ensure_future(_announce(ready(), server, listener, on_ready))
        try:
            await server.serve(sockets=[own_listener])
        finally:
            announcing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await announcing


async def _announce(
    ready: Awaitable[None], server: Server, listener: socket.socket, on_ready: Callable[[str], None]
) -> None:
    try:
        await ready
    except Exception:
        if server.is_ending:  # and what was not ready yet has been ended
            return
        server.should_exit = True
        raise
    freeze_gc()
    while not server.started:  # what is told earlier than we listen would be refused
        await asyncio.sleep(0.01)
    if server.is_ending:
        return
    host, port = listener.getsockname()[:2]
    on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")


def _listener(config: ServerConfig) -> socket.socket:
    """The listening socket, made before any model is loaded: a port that is taken shows at once."""
    host, port = config.host, config.port
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as exc:
        raise ConfigError(
            f"cannot listen on {host!r} port {port}: {exc.strerror or exc};"
            " stop what listens there or choose another --port"
        ) from exc
    return listener
