"""Listens, serves until a signal comes, and drains."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager

import uvicorn
from litestar import Litestar

from serac_gateway.bounded_http import bounded_http
from serac_gateway.config import ServerConfig
from serac_gateway.errors import ConfigError
from serac_gateway.hangups import Hangups

_KEEP_ALIVE_S = 90
"""Above the 60 s after which common load balancers close an idle connection themselves."""

OpenApp = Callable[[], AbstractAsyncContextManager[Litestar]]
WhenReady = Callable[[Litestar], Awaitable[None]]
OnHangup = Callable[[Litestar], Awaitable[None]]


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
    SIGHUP calls `on_hangup` (see hangups.py); without, it ends the process as by default.

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
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(_listener(config)))
        hangups = Hangups()
        if on_hangup is not None:
            stack.enter_context(hangups.caught())
        app = await stack.enter_async_context(open_app())
        if on_hangup is not None:
            await stack.enter_async_context(hangups.answered(lambda: on_hangup(app)))
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
