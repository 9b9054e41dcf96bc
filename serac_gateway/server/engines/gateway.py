"""A gateway without store, edits and models: it serves /v1, and an engine elsewhere decides and answers."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send
from prometheus_client.exposition import generate_latest
from typing_extensions import override

from serac_gateway.auth.origins import OriginPolicy
from serac_gateway.auth.principals import EVERY_NAMESPACE, Role
from serac_gateway.config.model import GatewayConfig, UpstreamConfig
from serac_gateway.control_plane.http.schemas import Liveness, ReadinessReport
from serac_gateway.data_plane.engine import NeedsDecision
from serac_gateway.data_plane.engine_access import (
    SECRET_HEADER,
    engine_secret,
    engine_tls,
    load_own_certificate,
    parse_engine_address,
)
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.data_plane.upstream.http import HttpUpstream
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import ConfigError, GatewayError, PermissionDeniedError
from serac_gateway.observability.counts import RequestCounter, RouteCounts
from serac_gateway.observability.engine_gauges import EngineGauges, EngineSources
from serac_gateway.observability.metrics import Instruments
from serac_gateway.observability.request_log import RequestLog
from serac_gateway.server.body_memory import Asgi
from serac_gateway.server.browsers import BrowserGuard, send_problem
from serac_gateway.server.engines.link import EngineLink
from serac_gateway.server.engines.shared_engine import SharedEngine
from serac_gateway.server.resources import SharedResources
from serac_gateway.server.tracing import open_tracing
from serac_gateway.server.upstreams import open_upstream
from serac_gateway.server.wiring import label_observers
from serac_gateway.server.workers.request_reports import RequestReporter
from serac_gateway.server.workers.worker_app import WorkerApp

log = logging.getLogger(__name__)

_JSON = [(b"content-type", b"application/json")]
_METRICS = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
_DAY_S = 86_400.0
"""The timeouts of relayed calls: the control plane may stream the report of an import for hours."""


class ThinGateway(msgspec.Struct, frozen=True, kw_only=True):
    """An open gateway without models."""

    app: Asgi
    link: EngineLink
    renew_certificate: Callable[[], None]
    """Reads this side's certificate again, for connections from then on."""

    async def wait_until_ready(self) -> None:
        """Return when the engine is connected."""
        await self.link.wait_until_connected()


@asynccontextmanager
async def open_thin_gateway(config: GatewayConfig) -> AsyncIterator[ThinGateway]:
    """Open the gateway whose engine is at `config.engine.url`; the engine need not be there yet.

    Raises:
        ConfigError: Something cannot be opened as configured.
    """
    _check(config)
    engine = config.engine
    address = parse_engine_address(engine.url or "", key="engine.url")
    tls = engine_tls(engine, serves=False) if address.path is None else None
    secret = engine_secret()
    async with AsyncExitStack() as stack:
        lease = SharedResources().lease()
        stack.push_async_callback(lease.close)
        upstream = await open_upstream(config, lease)
        tracing = open_tracing(config.tracing)
        stack.push_async_callback(asyncio.to_thread, tracing.close)
        link = EngineLink(address, config, tls=tls, secret=secret)
        stack.push_async_callback(link.close)
        counts = RouteCounts()
        reporter = RequestReporter(
            link,
            worker=f"{socket.gethostname()}-{secrets.token_hex(4)}",
            in_flight=lambda: counts.in_flight,
        )
        stack.push_async_callback(reporter.close)
        instruments = Instruments(
            config.metrics,
            has_edits=lambda name: link.namespaces.needs_decision(name) is not NeedsDecision.NONE,
        )
        data_plane = DataPlane(
            engine=SharedEngine(link, config),
            upstream=upstream.upstream,
            tracing=tracing,
            config=config,
            counts=counts,
            observers=[
                RequestCounter(counts).add,
                instruments.add,
                RequestLog(config.logging).add,
                *label_observers(config, instruments),
                reporter.add,
            ],
        )
        relayed = UpstreamConfig(
            url=address.base_url,
            response_timeout_s=_DAY_S,
            chunk_timeout_s=_DAY_S,
            connect_timeout_s=engine.connect_timeout_s,
        )
        control_plane = HttpUpstream(relayed, socket_path=address.path, tls=tls)
        stack.push_async_callback(control_plane.close)
        app = _ThinApp(data_plane, control_plane, config, link, instruments, secret)
        instruments.registry.register(EngineGauges(_sources(app, counts)))
        link.start()

        def renew_certificate() -> None:
            if tls is not None:
                try:
                    load_own_certificate(tls, engine)
                except ConfigError as error:
                    log.error("the certificate stays the old one: %s", error.message)

        yield ThinGateway(app=app, link=link, renew_certificate=renew_certificate)


def _check(config: GatewayConfig) -> None:
    if config.upstream.url is None:
        raise ConfigError(
            "upstream.url is not set, and with engine.url there is no embedded base model; set it to the base"
            " model's server, such as http://127.0.0.1:8000/v1",
            field="upstream.url",
        )
    if config.server.workers != 1:
        raise ConfigError(
            f"server.workers is {config.server.workers}, and a gateway with engine.url is one process; set it"
            " to 1 and start several gateways behind a load balancer",
            field="server.workers",
        )


def _sources(app: _ThinApp, counts: RouteCounts) -> EngineSources:
    link = app.link
    return EngineSources(
        counts=counts,
        is_ready=lambda: not app.missing,
        away_s=lambda: link.away_s,
        open_calls=lambda: link.open_calls,
        connects=lambda: link.connects,
        calls=lambda: link.calls,
    )


class _ThinApp(WorkerApp):
    """As a worker's, but /health and /metrics are this process' own; /health/ready asks the engine too."""

    def __init__(
        self,
        data_plane: DataPlane,
        control_plane: HttpUpstream,
        config: GatewayConfig,
        link: EngineLink,
        instruments: Instruments,
        secret: str | None,
    ) -> None:
        super().__init__(
            data_plane,
            control_plane,
            BrowserGuard(OriginPolicy.of(config)),
            behind="the engine",
            added_headers=() if secret is None else [(SECRET_HEADER.encode(), secret.encode())],
            before_reply=self._in_step,
        )
        self.link = link
        self._engine = data_plane.engine
        self._instruments = instruments
        self._max_away_s = config.store.max_staleness_s

    @property
    def missing(self) -> dict[str, str]:
        """What keeps this process from being ready, beside what the engine says of itself."""
        link = self.link
        if link.problem is None or (link.hello is not None and link.away_s <= self._max_away_s):
            return {}
        return {"engine": link.problem}

    @override
    async def _serve_control(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == ScopeType.HTTP
        path = scope["path"]
        if scope["method"] != "GET" or path not in ("/health/live", "/health/ready", "/metrics"):
            await self._relay(scope, receive, send)
            return
        if path == "/health/ready" and self.link.problem is None:
            await self._relay(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send)
        async with exchange:
            try:
                await exchange.read_body(1_024)
                if path == "/metrics":
                    await self._send_metrics(exchange)
                elif path == "/health/live":
                    await exchange.respond(200, _JSON, msgspec.json.encode(Liveness(live=True)))
                else:
                    await self._send_readiness(exchange)
            except GatewayError as error:
                await send_problem(exchange, error)

    async def _send_readiness(self, exchange: Exchange) -> None:
        missing = self.missing
        store = f"the engine is away: {self.link.problem}"
        report = ReadinessReport(ready=not missing, missing=missing, store=store)
        await exchange.respond(503 if missing else 200, _JSON, msgspec.json.encode(report))

    async def _send_metrics(self, exchange: Exchange) -> None:
        """As `control_plane.http.guards.require_metrics_key` allows it."""
        if not self._instruments.open:
            principal = await self._engine.authenticate(exchange.headers)
            principal.require(Role.EDIT)
            if not principal.may_use(EVERY_NAMESPACE):
                raise PermissionDeniedError(
                    "/metrics covers all namespaces, and this API key is bound to some"
                )
        text = await asyncio.to_thread(generate_latest, self._instruments.registry)
        await exchange.respond(200, _METRICS, text)

    async def _in_step(self, headers: Headers) -> None:
        """Before a writer reads the reply, what it wrote is decided on here too."""
        await self.link.in_step_with(headers)
