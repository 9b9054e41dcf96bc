"""A gateway without models in front of an engine on a Unix socket, both in the test's own event loop."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from serac_gateway import __version__
from serac_gateway.config.model import UPSTREAM_API_KEY_VARIABLE, EngineConfig, GatewayConfig
from serac_gateway.data_plane.engine_access import EngineHello
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.observability.counts import RouteCounts
from serac_gateway.server.asgi import GatewayApp
from serac_gateway.server.engines.engine_server import EngineServer, EngineSocket, listening_for_gateways
from serac_gateway.server.engines.gateway import open_thin_gateway
from serac_gateway.server.engines.messages import protocol, section_digests
from serac_gateway.server.engines.namespaces import NamespaceFeed
from serac_gateway.server.workers.rpc_messages import RequestReport
from tests.http.listening import listening


class ThinUrl(str):
    """The URL of a gateway, which knows where its engine is."""

    engine_url: str

    def __new__(cls, url: str, engine_url: str) -> ThinUrl:
        made = super().__new__(cls, url)
        made.engine_url = engine_url
        return made


@asynccontextmanager
async def gateway_of_engine(
    app: GatewayApp,
    plane: DataPlane,
    *,
    active_edits: ActiveEdits,
    counts: RouteCounts,
    config: GatewayConfig,
    upstream_url: str,
    api_key: str | None,
    keys_required: bool,
) -> AsyncIterator[ThinUrl]:
    """Yields the gateway's URL, once it is connected."""

    def take_report(report: RequestReport) -> None:
        counts.in_flight_of_workers[report.worker] = report.in_flight
        for request in report.requests:
            plane.observe(request)

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        feed = NamespaceFeed(active_edits, lambda: config.traffic.namespaces)
        address = f"unix://{folder / 'engine.sock'}"
        config = msgspec.structs.replace(
            config,
            engine=EngineConfig(url=address, listen=address),
            access=msgspec.structs.replace(config.access, required=keys_required),
            upstream=msgspec.structs.replace(config.upstream, url=upstream_url),
        )
        hello = EngineHello(
            version=__version__,
            protocol=protocol(),
            process="",
            keys_required=keys_required,
            encoder="words-1",
            classifier="threshold-1",
            sections=section_digests(config),
        )
        server = EngineServer(
            app.serve_for_worker,
            feed=feed,
            hello=lambda: hello,
            lease=lambda: nullcontext(plane.engine),
            on_report=take_report,
        )
        bound = stack.enter_context(closing(EngineSocket(config.engine)))
        limits = msgspec.structs.replace(config.server, drain_timeout_s=1.0)
        await stack.enter_async_context(listening_for_gateways(server, bound, limits, before_end=feed.close))
        if api_key is not None:  # a gateway has it from its environment
            os.environ[UPSTREAM_API_KEY_VARIABLE] = api_key
            stack.callback(os.environ.pop, UPSTREAM_API_KEY_VARIABLE)
        gateway = await stack.enter_async_context(open_thin_gateway(config))
        await gateway.wait_until_ready()
        listener = socket.create_server(("127.0.0.1", 0))
        url = await stack.enter_async_context(listening(gateway.app, listener, config.server, lifespan="off"))
        yield ThinUrl(url, address)
