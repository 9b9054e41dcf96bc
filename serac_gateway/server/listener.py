"""Listens on the public address, serves until a signal, and drains."""

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
from typing import Literal, Protocol, TypeVar, cast

import msgspec
import uvicorn
from litestar import Litestar

from serac_gateway.config.model import ServerConfig
from serac_gateway.errors import ConfigError
from serac_gateway.server.body_memory import Asgi, closing_accounts
from serac_gateway.server.connections import raise_file_limit
from serac_gateway.server.http_limits import LimitedHttpProtocol, limited_http_protocol
from serac_gateway.server.memory import freeze_gc
from serac_gateway.server.signals import SighupHandler

_KEEP_ALIVE_S = 90
"""Above the 60 s after which common load balancers close an idle connection themselves."""
_LINGER_S = 1.0
"""How long an idle connection stays open after the listening socket has closed."""
_LINGER_STEP_S = 0.02


class HasApp(Protocol):
    """A record with an ASGI application, as `gateway.Gateway`."""

    @property
    def app(self) -> Asgi:
        """The application."""
        ...


GatewayT = TypeVar("GatewayT", bound=HasApp)


class Frontend(msgspec.Struct, frozen=True, kw_only=True):
    """Other processes that serve the public socket, in front of the gateway (see workers/)."""

    app: Asgi
    """The application that this process serves to them."""
    listener: socket.socket
    """The socket on which it serves them."""
    ready: Awaitable[None]
    """Done when the public socket is served; raises if it cannot be."""
    drain: Callable[[], Awaitable[None]]
    """Stops serving the public socket; when it returns, the last request has ended. Idempotent."""
    force: Callable[[], None]
    """Ends the requests for which `drain` waits."""


OpenFrontend = Callable[[GatewayT, socket.socket], AbstractAsyncContextManager[Frontend]]
"""Starts the frontend of a gateway on the public socket."""


def serve_until_stopped(
    open_gateway: Callable[[], AbstractAsyncContextManager[GatewayT]],
    config: ServerConfig,
    *,
    when_ready: Callable[[GatewayT], Awaitable[None]],
    on_ready: Callable[[str], None] = lambda url: None,
    on_sighup: Callable[[GatewayT], Awaitable[None]] | None = None,
    open_frontend: OpenFrontend[GatewayT] | None = None,
    lifespan: Literal["auto", "off"] = "auto",
) -> None:
    """Serve a gateway until SIGINT or SIGTERM; running answers may finish within `config.drain_timeout_s`.

    The port is bound before `open_gateway` is entered. `on_ready` is called with the URL when `when_ready`
    returns. SIGHUP calls `on_sighup` (see signals.py); without it SIGHUP ends the process, as by default.
    With `open_frontend` other processes serve on the port. `lifespan` "off": the app is sent no such events.

    Raises:
        ConfigError: The address is taken; also whatever `open_gateway` and `when_ready` raise.
    """
    import uvloop

    raise_file_limit()  # before child processes are started
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(open_gateway, config, when_ready, on_ready, on_sighup, open_frontend, lifespan))


def uvicorn_config(
    app: Asgi | Litestar, config: ServerConfig, *, lifespan: Literal["auto", "off"] = "auto"
) -> uvicorn.Config:
    """Uvicorn's settings for the gateway and its workers.

    Raises:
        ConfigError: `server.trusted_proxies` holds a value that is neither an address nor a network.
    """
    return uvicorn.Config(
        closing_accounts(app),
        http=limited_http_protocol(config),
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
                f"server.trusted_proxies holds {proxy!r}, which is neither an address nor a network: {exc};"
                " write 10.0.0.7 or 10.0.0.0/8",
                field="server.trusted_proxies",
            ) from exc
    return list(proxies)


class Server(uvicorn.Server):
    """Ends on SIGINT or SIGTERM; uvicorn's own server would raise the signal again and skip our cleanup."""

    def __init__(self, config: uvicorn.Config, *, frontend: Frontend | None = None) -> None:
        """`frontend` is drained before the end."""
        super().__init__(config)
        self._frontend = frontend
        self._draining: asyncio.Task[None] | None = None

    @property
    def is_ending(self) -> bool:
        """Whether a signal has asked it to end."""
        return self.should_exit or self._draining is not None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn: a second SIGINT ends running requests."""
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
        """See uvicorn; but a request that is already on its way on an idle connection is still answered."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        until_s = time.monotonic() + _LINGER_S
        self._close_connections()
        await asyncio.sleep(_LINGER_STEP_S)  # some may have been accepted this very moment
        while self._close_connections() and time.monotonic() < until_s and not self.force_exit:
            await asyncio.sleep(_LINGER_STEP_S)
        await super().shutdown(sockets)

    def _close_connections(self) -> bool:
        """Have idle connections end with their next response; whether there are any."""
        connections = cast("set[LimitedHttpProtocol]", self.server_state.connections)
        return any([connection.close_after_next_response() for connection in connections])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn."""
        loop = asyncio.get_running_loop()
        caught = (signal.SIGINT, signal.SIGTERM)
        for number in caught:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in caught:
                loop.remove_signal_handler(number)


async def _serve(
    open_gateway: Callable[[], AbstractAsyncContextManager[GatewayT]],
    config: ServerConfig,
    when_ready: Callable[[GatewayT], Awaitable[None]],
    on_ready: Callable[[str], None],
    on_sighup: Callable[[GatewayT], Awaitable[None]] | None,
    open_frontend: OpenFrontend[GatewayT] | None,
    lifespan: Literal["auto", "off"],
) -> None:
    _checked_networks(config.trusted_proxies)  # before anything is opened
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(_listener(config)))
        sighup = SighupHandler()
        if on_sighup is not None:
            stack.enter_context(sighup.caught())
        gateway = await stack.enter_async_context(open_gateway())
        if on_sighup is not None:
            await stack.enter_async_context(sighup.handled_by(lambda: on_sighup(gateway)))
        frontend = None
        if open_frontend is not None:
            frontend = await stack.enter_async_context(open_frontend(gateway, listener))
        app, own_listener = (gateway.app, listener) if frontend is None else (frontend.app, frontend.listener)
        server = Server(uvicorn_config(app, config, lifespan=lifespan), frontend=frontend)

        async def ready() -> None:
            if frontend is not None:
                await frontend.ready
            await when_ready(gateway)

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
        if server.is_ending:  # the signal has ended the loading
            return
        server.should_exit = True
        raise
    freeze_gc()
    while not server.started:  # a client that learns the URL earlier would be refused
        await asyncio.sleep(0.01)
    if server.is_ending:
        return
    host, port = listener.getsockname()[:2]
    on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")


def _listener(config: ServerConfig) -> socket.socket:
    """The listening socket, made before any model is loaded: a taken port is reported at once."""
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
            " stop the process that listens there or choose another --port"
        ) from exc
    return listener
