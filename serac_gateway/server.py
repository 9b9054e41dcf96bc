"""Listens, serves until a signal comes, and drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager

import uvicorn
from litestar import Litestar

from serac_gateway.bounded_http import bounded_http
from serac_gateway.config import ServerConfig
from serac_gateway.errors import ConfigError

_KEEP_ALIVE_S = 90
"""Above the 60 s after which common load balancers close an idle connection themselves."""

OpenApp = Callable[[], AbstractAsyncContextManager[Litestar]]
WhenReady = Callable[[Litestar], Awaitable[None]]
OnHangup = Callable[[Litestar], Awaitable[None]]

log = logging.getLogger(__name__)


def serve_until_stopped(
    open_app: OpenApp,
    config: ServerConfig,
    *,
    when_ready: WhenReady,
    on_ready: Callable[[str], None] = lambda url: None,
    on_hangup: OnHangup | None = None,
) -> None:
    """Serve what `open_app` gives until SIGINT or SIGTERM; running answers may finish within the drain limit.

    The port is bound before `open_app` is entered. `on_ready` is told the URL when `when_ready` returns.
    SIGHUP calls `on_hangup`, once more if it came meanwhile; without, it ends the process as by default.

    Raises:
        ConfigError: The address is taken; also whatever `open_app` and `when_ready` raise.
    """
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(open_app, config, when_ready, on_ready, on_hangup))


class _Server(uvicorn.Server):
    """Ends by itself on SIGINT or SIGTERM; uvicorn's own would raise the signal again, past our cleanup."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
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
) -> None:
    with contextlib.closing(_listener(config)) as listener, _hangups(on_hangup is not None) as hung_up:
        async with open_app() as app, _answered(hung_up, app, on_hangup):
            server = _Server(
                uvicorn.Config(
                    app,
                    http=bounded_http(config),
                    log_level="warning",
                    access_log=False,
                    ws="none",
                    server_header=False,
                    date_header=False,  # the data plane passes the upstream's on, or adds its own
                    timeout_keep_alive=_KEEP_ALIVE_S,
                    timeout_graceful_shutdown=int(config.drain_timeout_s),
                )
            )
            announcing = asyncio.ensure_future(_announce(when_ready(app), server, listener, on_ready))
            try:
                await server.serve(sockets=[listener])
            finally:
                announcing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await announcing


@contextlib.contextmanager
def _hangups(wanted: bool) -> Iterator[asyncio.Event]:
    """Set by SIGHUP, also by one that comes before there is anything to tell of it."""
    loop, hung_up = asyncio.get_running_loop(), asyncio.Event()
    if not wanted:
        yield hung_up
        return
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    try:
        yield hung_up
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


@contextlib.asynccontextmanager
async def _answered(hung_up: asyncio.Event, app: Litestar, on_hangup: OnHangup | None) -> AsyncIterator[None]:
    async def answer() -> None:
        while on_hangup is not None:
            await hung_up.wait()
            hung_up.clear()
            try:
                await on_hangup(app)
            except Exception:
                log.exception("SIGHUP was not answered")

    answering = asyncio.ensure_future(answer())
    try:
        yield
    finally:
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering


async def _announce(
    ready: Awaitable[None], server: uvicorn.Server, listener: socket.socket, on_ready: Callable[[str], None]
) -> None:
    try:
        await ready
    except Exception:
        server.should_exit = True
        raise
    while not server.started:  # what is told earlier than we listen would be refused
        await asyncio.sleep(0.01)
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
