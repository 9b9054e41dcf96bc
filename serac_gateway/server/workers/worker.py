"""A worker: serves HTTP with a data plane of its own; the model process does the work that needs models.

``python -m serac_gateway.server.workers.worker LISTENER`` reads its settings from standard input and serves
on the listening socket with that file descriptor. It ends on SIGTERM once its running requests have ended,
and when the model process ends, which closes its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import uvicorn

from serac_gateway.auth.origins import OriginPolicy
from serac_gateway.config.model import UpstreamConfig
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.data_plane.request_head import LoopGuard
from serac_gateway.data_plane.upstream.http import HttpUpstream
from serac_gateway.observability.counts import RouteCounts
from serac_gateway.observability.logging import configure_logging
from serac_gateway.server.body_memory import Asgi
from serac_gateway.server.browsers import BrowserGuard
from serac_gateway.server.listener import Server, uvicorn_config
from serac_gateway.server.memory import freeze_gc
from serac_gateway.server.resources import SharedResources
from serac_gateway.server.tracing import open_tracing
from serac_gateway.server.upstreams import open_upstream
from serac_gateway.server.workers.namespace_bitmap import NamespaceBitmap
from serac_gateway.server.workers.remote_engine import RemoteEngine
from serac_gateway.server.workers.request_reports import RequestReporter
from serac_gateway.server.workers.rpc_client import RpcClient, worker_session
from serac_gateway.server.workers.rpc_messages import READY, WorkerSettings
from serac_gateway.server.workers.worker_app import WorkerApp

_RELAYED = UpstreamConfig(url="http://model-process", response_timeout_s=86_400.0, chunk_timeout_s=86_400.0)
"""The timeouts are those of a day: the control plane may stream the report of an import for hours."""


@asynccontextmanager
async def open_worker(settings: WorkerSettings) -> AsyncIterator[Asgi]:
    """The worker as an ASGI application; all that it opened is closed at the end.

    Raises:
        ConfigError: Something cannot be opened as configured.
    """
    config = settings.config
    upstream_config = msgspec.structs.replace(config.upstream, url=settings.upstream_url)
    config = msgspec.structs.replace(config, upstream=upstream_config)
    async with AsyncExitStack() as stack:
        lease = SharedResources().lease()
        stack.push_async_callback(lease.close)
        bitmap = NamespaceBitmap.open(Path(settings.bitmap_path))
        stack.callback(bitmap.close)
        client = RpcClient(worker_session(settings))
        stack.push_async_callback(client.close)
        upstream = await open_upstream(config, lease)
        tracing = open_tracing(config.tracing)
        stack.push_async_callback(asyncio.to_thread, tracing.close)
        counts = RouteCounts()
        reporter = RequestReporter(client, worker=settings.worker, in_flight=lambda: counts.in_flight)
        stack.push_async_callback(reporter.close)
        data_plane = DataPlane(
            engine=RemoteEngine(
                client,
                bitmap,
                keys_required=config.demands_keys,
                oidc=config.oidc,
                decision_timeout_s=config.routing.decision_timeout_s,
                answer_timeout_s=config.models.answer_timeout_s,
            ),
            upstream=upstream.upstream,
            tracing=tracing,
            loop_guard=LoopGuard(settings.loop_guard.encode()),
            config=config,
            counts=counts,
            observers=[reporter.add],
        )
        control_plane = HttpUpstream(_RELAYED, socket_path=settings.socket_path)
        stack.push_async_callback(control_plane.close)
        yield WorkerApp(data_plane, control_plane, BrowserGuard(OriginPolicy.of(config)))


async def _serve(settings: WorkerSettings, listener: socket.socket) -> None:
    async with open_worker(settings) as app:
        server = Server(uvicorn_config(app, settings.config.server, lifespan="off"))
        with _ending_with_parent(server):
            announcing = asyncio.create_task(_announce(server))
            await server.serve(sockets=[listener])
            await announcing


@contextlib.contextmanager
def _ending_with_parent(server: uvicorn.Server) -> Iterator[None]:
    """End when the model process ends: after the settings standard input carries nothing but its end."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(0)  # an end of file stays readable and would keep the loop busy while it drains
        server.handle_exit(signal.SIGTERM, None)

    loop.add_reader(0, end)
    try:
        yield
    finally:
        loop.remove_reader(0)


async def _announce(server: uvicorn.Server) -> None:
    while not server.started:
        if server.should_exit:
            return
        await asyncio.sleep(0.01)
    freeze_gc()
    os.write(1, READY)
    os.dup2(2, 1)  # standard output is not read any more; a library that writes there must not block


def main() -> None:
    """The entry point."""
    import uvloop

    length = int.from_bytes(_read_exactly(4), "big")
    settings = msgspec.msgpack.decode(_read_exactly(length), type=WorkerSettings)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the model process handles it and replaces its workers
    configure_logging(settings.config.logging)
    listener = socket.socket(fileno=int(sys.argv[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, listener))


def _read_exactly(count: int) -> bytes:
    """Read `count` bytes from standard input, unbuffered: its end is watched later."""
    data = b""
    while len(data) < count:
        chunk = os.read(0, count - len(data))
        if not chunk:
            raise EOFError("the settings broke off")
        data += chunk
    return data


if __name__ == "__main__":
    main()
