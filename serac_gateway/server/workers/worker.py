"""A worker: serves HTTP with a data plane of its own, and asks the model process for what takes a model.

``python -m serac_gateway.server.workers.worker LISTENER`` takes its settings on standard input and serves on
the listening socket with that number. It ends on SIGTERM, when its running requests have, and with the model
process, whose end closes its standard input.
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

from serac_gateway.config.model import UpstreamConfig
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.data_plane.request_head import LoopGuard
from serac_gateway.data_plane.upstream.http import HttpUpstream
from serac_gateway.observability.counts import RouteCounts
from serac_gateway.observability.logging import configure_logging
from serac_gateway.server.listener import Asgi, Server, uvicorn_config
from serac_gateway.server.memory import freeze_gc
from serac_gateway.server.resources import SharedResources
from serac_gateway.server.upstreams import open_upstream
from serac_gateway.server.wiring import open_tracing
from serac_gateway.server.workers.namespace_bitmap import NamespaceBitmap
from serac_gateway.server.workers.remote_engine import (
    FinishedReports,
    ModelProcess,
    RemoteAnswers,
    RemoteAuthenticator,
    RemoteContinuing,
    RemoteDeciding,
)
from serac_gateway.server.workers.rpc_messages import READY, WorkerSettings
from serac_gateway.server.workers.worker_app import WorkerApp

_RELAYED = UpstreamConfig(url="http://model-process", response_timeout_s=86_400.0, chunk_timeout_s=86_400.0)
"""The control plane takes its time: an import streams its report for hours."""


@asynccontextmanager
async def open_worker(settings: WorkerSettings) -> AsyncIterator[Asgi]:
    """The worker as an ASGI application, its parts closed at the end.

    Raises:
        ConfigError: A part cannot be had.
    """
    config = settings.config
    upstream_config = msgspec.structs.replace(config.upstream, url=settings.upstream_url)
    config = msgspec.structs.replace(config, upstream=upstream_config)
    async with AsyncExitStack() as stack:
        lease = SharedResources().lease()
        stack.push_async_callback(lease.close)
        interest = NamespaceBitmap.open(Path(settings.bitmap_path))
        stack.callback(interest.close)
        models = ModelProcess(settings)
        stack.push_async_callback(models.close)
        upstream = await open_upstream(config, lease)
        tracing = open_tracing(config.tracing)
        stack.push_async_callback(asyncio.to_thread, tracing.close)
        counts = RouteCounts()
        reports = FinishedReports(models, worker=settings.worker, in_flight=lambda: counts.in_flight)
        stack.push_async_callback(reports.close)
        data_plane = DataPlane(
            deciding=RemoteDeciding(models, interest),
            upstream=upstream.upstream,
            answers=RemoteAnswers(models),
            continuing=RemoteContinuing(models),
            authenticator=RemoteAuthenticator(models, required=config.demands_keys),
            tracing=tracing,
            loop_guard=LoopGuard(settings.loop_guard.encode()),
            config=config,
            counts=counts,
            observers=[reports.add],
        )
        control_plane = HttpUpstream(_RELAYED, socket_path=settings.socket_path)
        stack.push_async_callback(control_plane.close)
        yield WorkerApp(data_plane, control_plane)


async def _serve(settings: WorkerSettings, listener: socket.socket) -> None:
    async with open_worker(settings) as app:
        server = Server(uvicorn_config(app, settings.config.server, lifespan="off"))
        with _ending_with_parent(server):
            announcing = asyncio.create_task(_announce(server))
            await server.serve(sockets=[listener])
            await announcing


@contextlib.contextmanager
def _ending_with_parent(server: uvicorn.Server) -> Iterator[None]:
    """End when the model process has: nothing is written to standard input after the settings."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(0)  # an end of file stays readable, and would keep the loop busy while it drains
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
    os.dup2(2, 1)  # nobody reads on, and what is written there must not wait for that


def main() -> None:
    """The entry point."""
    import uvloop

    length = int.from_bytes(_read_exactly(4), "big")
    settings = msgspec.msgpack.decode(_read_exactly(length), type=WorkerSettings)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is for the model process, which replaces its workers
    configure_logging(settings.config.logging)
    listener = socket.socket(fileno=int(sys.argv[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, listener))


def _read_exactly(count: int) -> bytes:
    """From standard input, not a byte more: its end is waited for later."""
    data = b""
    while len(data) < count:
        part = os.read(0, count - len(data))
        if not part:
            raise EOFError("the settings broke off")
        data += part
    return data


if __name__ == "__main__":
    main()
