"""The engine's side: serves the gateways that have no models, on a socket of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
    suppress,
)
from pathlib import Path

import msgspec
import uvicorn
from litestar.enums import ScopeType
from litestar.types import Message, Receive, Scope, Send
from uvicorn.server import ServerState

from serac_gateway import __version__
from serac_gateway.config.model import EngineConfig, GatewayConfig, ServerConfig
from serac_gateway.data_plane.engine import Engine
from serac_gateway.data_plane.engine_access import (
    HELLO_PATH,
    HELLO_TOKEN,
    POSITION_HEADER,
    SECRET_HEADER,
    TOKEN_HEADER,
    EngineAddress,
    EngineHello,
    engine_secret,
    engine_tls,
    load_own_certificate,
    parse_engine_address,
)
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.errors import ConfigError
from serac_gateway.observability.engine_gauges import EngineServerGauges
from serac_gateway.server.body_memory import Asgi, closing_accounts
from serac_gateway.server.engines.messages import (
    NAMESPACES_PATH,
    STATUS_OTHER_PROCESS,
    protocol,
    section_digests,
)
from serac_gateway.server.engines.namespaces import NamespaceFeed
from serac_gateway.server.gateway import Gateway
from serac_gateway.server.http_limits import limited_http_protocol
from serac_gateway.server.runtime import Runtime
from serac_gateway.server.workers.rpc_messages import RequestReport
from serac_gateway.server.workers.rpc_server import RpcServer

log = logging.getLogger(__name__)

_HANDSHAKE_TIMEOUT_S = 10.0
_BACKLOG = 2_048
_KEEP_ALIVE_S = 90


class EngineServer:
    """Answers the calls of gateways, and gives the requests that they relay to `app`."""

    def __init__(
        self,
        app: Asgi,
        *,
        feed: NamespaceFeed,
        hello: Callable[[], EngineHello],
        lease: Callable[[], AbstractContextManager[Engine]],
        on_report: Callable[[RequestReport], None],
        secret: str | None = None,
    ) -> None:
        """`hello` says what the engine is now, with `process` empty. Requests must carry `secret`, if any."""
        self.process = secrets.token_hex(16)
        """A name of this process: calls that are meant for an earlier one are refused."""
        self.gateways = 0
        """How many gateways follow it now."""
        self._feed = feed
        self._hello = hello
        self._secret = None if secret is None else secret.encode()
        self._calls = RpcServer(app, token=self.process, lease=lease, on_report=on_report)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application; lifespan events are not for it."""
        assert scope["type"] == ScopeType.HTTP
        headers = dict(scope["headers"])
        if self._secret is not None and not secrets.compare_digest(
            headers.get(SECRET_HEADER.encode(), b""), self._secret
        ):
            await _respond(scope, receive, send, 403, b"")
            return
        token = headers.get(TOKEN_HEADER.encode())
        if token == HELLO_TOKEN.encode() and scope["path"] == HELLO_PATH:
            hello = msgspec.structs.replace(self._hello(), process=self.process)
            await _respond(scope, receive, send, 200, msgspec.json.encode(hello))
        elif token is not None and token != self.process.encode():
            await _respond(scope, receive, send, STATUS_OTHER_PROCESS, b"")
        elif token is not None and scope["path"] == NAMESPACES_PATH:
            await self._feed_gateway(scope, receive, send)
        else:
            await self._calls(scope, receive, self._with_position(send))

    def _with_position(self, send: Send) -> Send:
        async def send_with_position(message: Message) -> None:
            if message["type"] == "http.response.start":
                value = f"{self._feed.version}-{self.process}"
                position = (POSITION_HEADER.encode(), value.encode())
                message["headers"] = [*message["headers"], position]
            await send(message)

        return send_with_position

    async def _feed_gateway(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == ScopeType.HTTP
        exchange = Exchange(scope, receive, send)
        self.gateways += 1
        try:
            async with exchange:
                await exchange.read_body(1_024)
                await exchange.start(200, [])
                async for frame in self._feed.frames():
                    await exchange.write(frame.encode())
                await exchange.finish()
        finally:
            self.gateways -= 1


@asynccontextmanager
async def serving_gateways(
    gateway: Gateway, config: GatewayConfig, bound: EngineSocket
) -> AsyncIterator[Callable[[Runtime], None]]:
    """Serve other gateways with this one's engine, until the context is left: then running calls may end.

    Yields a function to be called with each new runtime.

    Raises:
        ConfigError: The secret is unusable.
    """
    feed = NamespaceFeed(
        gateway.process.active_edits, lambda: gateway.runtimes.current.config.traffic.namespaces
    )

    def hello() -> EngineHello:
        runtime = gateway.runtimes.current
        return EngineHello(
            version=__version__,
            protocol=protocol(),
            process="",
            keys_required=runtime.config.demands_keys,
            encoder=gateway.process.encoder.fingerprint,
            classifier=runtime.classifier_fingerprint,
            sections=section_digests(runtime.config),
        )

    @contextmanager
    def leased() -> Iterator[Engine]:
        with gateway.runtimes.lease() as runtime:
            yield runtime.data_plane.engine

    def take_report(report: RequestReport) -> None:
        for request in report.requests:
            gateway.runtimes.current.remember(request)

    server = EngineServer(
        gateway.app.serve_for_worker,
        feed=feed,
        hello=hello,
        lease=leased,
        on_report=take_report,
        secret=engine_secret(),
    )
    gateway.process.instruments.registry.register(EngineServerGauges(lambda: server.gateways))
    keys_required = config.demands_keys

    def on_reloaded(runtime: Runtime) -> None:
        nonlocal keys_required
        bound.renew_certificate()
        feed.note_recorded()
        if runtime.config.demands_keys is not keys_required:
            keys_required = runtime.config.demands_keys
            feed.end_streams()

    async with listening_for_gateways(server, bound, config.server, before_end=feed.close):
        log.info("serving gateways at %s", config.engine.listen)
        yield on_reloaded


class EngineSocket:
    """The socket of an engine, bound and not yet listening: who connects too early is refused."""

    def __init__(self, config: EngineConfig) -> None:
        """Bind it. `close` it, or use it as a context.

        Raises:
            ConfigError: `config.listen` is not set or taken, or the TLS files are unusable.
        """
        if config.listen is None:
            raise ConfigError(
                "engine.listen is not set; give the address that gateways connect to, such as"
                " tls://0.0.0.0:8443 or unix:///run/serac/engine.sock",
                field="engine.listen",
            )
        self._config = config
        address = parse_engine_address(config.listen, key="engine.listen")
        self.tls = engine_tls(config, serves=True) if address.path is None else None
        self.listener = _bound(address, config.listen)
        self._path = address.path

    def renew_certificate(self) -> None:
        """Read this side's certificate again; a log line says if it cannot be read, and the old one stays."""
        if self.tls is not None:
            try:
                load_own_certificate(self.tls, self._config)
            except ConfigError as error:
                log.error("the certificate stays the old one: %s", error.message)

    def close(self) -> None:
        """Close it. Idempotent."""
        self.listener.close()
        if self._path is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._path)


def _bound(address: EngineAddress, listen: str) -> socket.socket:
    try:
        if address.path is not None:
            _remove_stale(Path(address.path))
            before = os.umask(0o177)  # only this user may connect
            try:
                return _bound_to(socket.AF_UNIX, address.path)
            finally:
                os.umask(before)
        family, *_, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return _bound_to(family, where)
    except OSError as exc:
        raise ConfigError(
            f"engine.listen {listen!r}: cannot listen there: {exc.strerror or exc}; end the process that"
            " does, or choose another address",
            field="engine.listen",
        ) from exc


def _bound_to(family: int, where: object) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)  # type: ignore[arg-type] # as the family wants it
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket of an engine that was killed; of one that lives it stays, so that binding fails."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return
    except FileNotFoundError:
        return
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)


@asynccontextmanager
async def listening_for_gateways(
    app: Asgi,
    bound: EngineSocket,
    limits: ServerConfig,
    *,
    before_end: Callable[[], None] = lambda: None,
) -> AsyncIterator[None]:
    """Serve `app` on the bound socket; at the end running requests may end within the drain limit."""
    config = uvicorn.Config(
        closing_accounts(app),
        http=limited_http_protocol(limits),
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        ws="none",
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()
    make_protocol = config.http_protocol_class

    def protocol_of_connection() -> asyncio.Protocol:
        return make_protocol(config=config, server_state=state, app_state={}, _loop=loop)  # type: ignore[call-arg]

    async with AsyncExitStack() as stack:
        # Not by uvicorn's own server: it would wait a minute for the handshake of a client that is silent.
        server = await loop.create_server(
            protocol_of_connection,
            sock=bound.listener,
            ssl=bound.tls,
            ssl_handshake_timeout=None if bound.tls is None else _HANDSHAKE_TIMEOUT_S,
            backlog=_BACKLOG,
        )
        stack.push_async_callback(_drain, server, state, before_end, limits.drain_timeout_s)
        yield


async def _drain(
    server: asyncio.Server, state: ServerState, before_end: Callable[[], None], limit_s: float
) -> None:
    server.close()
    before_end()
    for connection in list(state.connections):
        connection.shutdown()
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while state.tasks:
                await asyncio.wait(set(state.tasks))
    for task in state.tasks:
        task.cancel()
    for connection in list(state.connections):
        if (transport := getattr(connection, "transport", None)) is not None:
            transport.abort()


async def _respond(scope: Scope, receive: Receive, send: Send, status: int, body: bytes) -> None:
    assert scope["type"] == ScopeType.HTTP
    exchange = Exchange(scope, receive, send)
    async with exchange:
        await exchange.read_body(1_024)
        await exchange.respond(status, [], body)
