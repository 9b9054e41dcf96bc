"""A worker's application in front of a gateway on a Unix socket, both in the test's own event loop."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from serac_gateway.config.model import UPSTREAM_API_KEY_VARIABLE, GatewayConfig
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.observability.counts import RouteCounts
from serac_gateway.server.asgi import GatewayApp
from serac_gateway.server.workers.namespace_bitmap import NamespaceBitmap, NamespaceBitmapWriter
from serac_gateway.server.workers.rpc_messages import RequestReport, WorkerSettings
from serac_gateway.server.workers.rpc_server import RpcServer
from serac_gateway.server.workers.worker import open_worker
from tests.http.listening import listening


@asynccontextmanager
async def worker_in_front(
    app: GatewayApp,
    plane: DataPlane,
    *,
    active_edits: ActiveEdits,
    counts: RouteCounts,
    config: GatewayConfig,
    upstream_url: str,
    api_key: str | None,
    keys_required: bool,
) -> AsyncIterator[str]:
    """Yields the worker's URL."""

    def take_report(report: RequestReport) -> None:
        counts.in_flight_of_workers[report.worker] = report.in_flight
        for request in report.requests:
            plane.observe(request)

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        table = NamespaceBitmap.create(folder / "namespaces")
        NamespaceBitmapWriter(table, active_edits, lambda: config.traffic.namespaces)
        models = stack.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
        models.bind(str(folder / "models.sock"))
        calls = RpcServer(
            app.serve_for_worker,
            token="the token",
            lease=lambda: nullcontext(plane.engine),
            on_report=take_report,
        )
        await stack.enter_async_context(listening(calls, models, config.server))
        access = msgspec.structs.replace(config.access, required=keys_required)
        settings = WorkerSettings(
            worker="worker-1",
            config=msgspec.structs.replace(config, access=access),
            upstream_url=upstream_url,
            loop_guard="0123456789ab",
            socket_path=str(folder / "models.sock"),
            bitmap_path=str(folder / "namespaces"),
            token="the token",
        )
        if api_key is not None:  # a worker has it from its environment, like any gateway
            os.environ[UPSTREAM_API_KEY_VARIABLE] = api_key
            stack.callback(os.environ.pop, UPSTREAM_API_KEY_VARIABLE)
        worker = await stack.enter_async_context(open_worker(settings))
        listener = socket.create_server(("127.0.0.1", 0))
        yield await stack.enter_async_context(listening(worker, listener, config.server, lifespan="off"))
