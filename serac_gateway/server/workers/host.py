"""The model process's side of serving with workers: its socket, their settings, and their replacement."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path

from serac_gateway.data_plane.engine import Engine
from serac_gateway.errors import ConfigError
from serac_gateway.server.data_folder import WORKERS_PREFIX, sweep_worker_folders
from serac_gateway.server.gateway import Gateway
from serac_gateway.server.listener import Frontend
from serac_gateway.server.runtime import Runtime
from serac_gateway.server.workers.namespace_bitmap import NamespaceBitmap, NamespaceBitmapWriter
from serac_gateway.server.workers.rpc_messages import RequestReport, WorkerSettings
from serac_gateway.server.workers.rpc_server import RpcServer
from serac_gateway.server.workers.supervisor import Supervisor


class _Host:
    """Starts the workers of each configuration and counts their requests. Belongs to one event loop."""

    def __init__(self, gateway: Gateway, supervisor: Supervisor, folder: Path) -> None:
        self.token = secrets.token_hex(32)
        self.socket_path = folder / "models.sock"
        self._runtimes = gateway.runtimes
        self._loop_guard = gateway.process.loop_guard
        self._supervisor = supervisor
        self._bitmap_path = folder / "namespaces"
        self._bitmap = NamespaceBitmapWriter(
            NamespaceBitmap.create(self._bitmap_path),
            gateway.process.active_edits,
            recorded=lambda: gateway.runtimes.current.config.traffic.namespaces,
        )
        self._counts = gateway.process.counts

    async def start(self) -> None:
        (await self.prepare(self._runtimes.current))()

    async def prepare(self, runtime: Runtime) -> Callable[[], None]:
        """See `Reloader.prepare`: starts workers for `runtime`.

        Also when only files have changed: workers read the certificates of an upstream themselves, and while
        old workers run, the old runtime stays open with all its models.
        """
        held = ExitStack()
        held.enter_context(self._runtimes.lease(runtime))  # the workers use its upstream
        settings = WorkerSettings(
            worker="",
            config=runtime.config,
            upstream_url=runtime.control_plane.upstream_url,
            loop_guard=self._loop_guard.mark.decode(),
            socket_path=str(self.socket_path),
            bitmap_path=str(self._bitmap_path),
            token=self.token,
        )
        take_over = await self._supervisor.prepare(settings, on_gone=held.close)

        def put_in_place() -> None:
            self._bitmap.note(None)
            take_over()

        return put_in_place

    def take_report(self, report: RequestReport) -> None:
        """Count and log the requests of a worker's report."""
        if self._supervisor.is_running(report.worker):  # its last report may arrive after its end
            self._counts.in_flight_of_workers[report.worker] = report.in_flight
        for request in report.requests:
            self._runtimes.current.data_plane.observe(request)

    def forget(self, worker: str) -> None:
        """The worker has ended, and all its requests with it."""
        self._counts.in_flight_of_workers.pop(worker, None)


@asynccontextmanager
async def workers_frontend(gateway: Gateway, listener: socket.socket, count: int) -> AsyncIterator[Frontend]:
    """Let `count` workers serve on `listener`, and this process serve the workers; see `listener.Frontend`.

    The frontend's `ready` raises when a worker ends before it serves.

    Raises:
        ConfigError: The Unix socket for the workers cannot be made.
    """
    async with AsyncExitStack() as stack:
        # Only this user may enter the folder, so no other user can open the socket.
        await asyncio.to_thread(sweep_worker_folders)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=WORKERS_PREFIX)))
        stack.enter_context(_locked(folder))
        supervisor = Supervisor(count=count, listener=listener, on_ended=lambda name: host.forget(name))
        host = _Host(gateway, supervisor, folder)
        models = stack.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
        _bind(models, host.socket_path)
        if gateway.reloader is not None:
            gateway.reloader.prepare = host.prepare
        starting = asyncio.ensure_future(host.start())

        async def drain() -> None:
            listener.close()  # the workers close theirs: new connections are refused, not left waiting
            await supervisor.close()

        @contextmanager
        def leased() -> Iterator[Engine]:
            with gateway.runtimes.lease() as runtime:
                yield runtime.data_plane.engine

        stack.push_async_callback(drain)
        yield Frontend(
            app=RpcServer(
                gateway.app.serve_for_worker, token=host.token, lease=leased, on_report=host.take_report
            ),
            listener=models,
            ready=starting,
            drain=drain,
            force=supervisor.kill,
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a temporary folder, so that systemd-tmpfiles does not delete old files in it."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_SH)
        yield
    finally:
        os.close(opened)


def _bind(models: socket.socket, path: Path) -> None:
    try:
        models.bind(str(path))
    except OSError as exc:
        raise ConfigError(
            f"workers need a Unix socket, and none can be made at {str(path)!r}: {exc}; set TMPDIR to a"
            " folder with a shorter path, or server.workers to 1"
        ) from exc
