"""The model process's side of serving with workers: its socket, what they are told, and their replacement."""

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

from litestar import Litestar

from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.data_plane.request_head import LoopGuard
from serac_gateway.errors import ConfigError
from serac_gateway.server.listener import Frontend
from serac_gateway.server.reload import Reloader
from serac_gateway.server.runtime import Generation, Generations
from serac_gateway.server.workers.interest_table import NamespaceBitmap, NamespaceBitmapWriter
from serac_gateway.server.workers.rpc_messages import FinishedCall, WorkerSettings
from serac_gateway.server.workers.rpc_server import WorkerCalls
from serac_gateway.server.workers.supervisor import Workers


class _Host:
    """Starts the workers of each generation, and counts what they report. Belongs to one event loop."""

    def __init__(
        self, generations: Generations, loop_guard: LoopGuard, workers: Workers, folder: Path
    ) -> None:
        self.token = secrets.token_hex(32)
        self.socket_path = folder / "models.sock"
        self._generations = generations
        self._hop_mark = loop_guard
        self._workers = workers
        self._interest_path = folder / "interest"
        first = generations.current
        self._interest = NamespaceBitmapWriter(
            NamespaceBitmap.create(self._interest_path),
            first.control_plane.active_edits,
            recorded=lambda: generations.current.config.traffic.namespaces,
        )
        self._counts = first.control_plane.route_counts

    async def start(self) -> None:
        (await self.prepare(self._generations.current))()

    async def prepare(self, generation: Generation) -> Callable[[], None]:
        """See `Reloader.prepare`: workers of `generation`.

        Also where only its files changed: the certificates of an upstream are theirs, and workers that went
        on would hold on to the generation before, with all its models.
        """
        held = ExitStack()
        held.enter_context(self._generations.lease_of(generation))  # for they use its upstream
        settings = WorkerSettings(
            worker="",
            config=generation.config,
            upstream_url=generation.control_plane.upstream_url,
            loop_guard=self._hop_mark.own.decode(),
            socket_path=str(self.socket_path),
            interest_path=str(self._interest_path),
            token=self.token,
        )
        take_over = await self._workers.prepare(settings, on_gone=held.close)

        def put_in_place() -> None:
            self._interest.note(None)
            take_over()

        return put_in_place

    def note(self, call: FinishedCall) -> None:
        """Count what a worker reports."""
        if self._workers.is_running(call.worker):  # its last report may be read after its end
            self._counts.in_flight_of_workers[call.worker] = call.in_flight
        for request in call.requests:
            self._generations.current.data_plane.observe(request)

    def forget(self, worker: str) -> None:
        """The worker has ended, and its requests with it."""
        self._counts.in_flight_of_workers.pop(worker, None)


@asynccontextmanager
async def workers_frontend(app: Litestar, listener: socket.socket, count: int) -> AsyncIterator[Frontend]:
    """Have `count` workers serve on `listener`, and this process serve them; see `server.Frontend`.

    Raises:
        ConfigError: There can be no socket for them. That a worker ended before it served is told by the
            frontend's `ready`.
    """
    generations: Generations = app.state.generations
    loop_guard: LoopGuard = app.state.loop_guard
    async with AsyncExitStack() as stack:
        # Nobody but this user may look into it, so nobody else can open the socket.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serac-")))
        stack.enter_context(_locked(folder))
        workers = Workers(count=count, listener=listener, on_ended=lambda name: host.forget(name))
        host = _Host(generations, loop_guard, workers, folder)
        models = stack.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
        _bind(models, host.socket_path)
        reloader: Reloader | None = app.state.get("reloader")
        if reloader is not None:
            reloader.prepare = host.prepare
        starting = asyncio.ensure_future(host.start())

        async def drain() -> None:
            listener.close()  # the workers close theirs: who connects then is refused, not left waiting
            await workers.close()

        @contextmanager
        def leased() -> Iterator[DataPlane]:
            with generations.lease() as generation:
                yield generation.data_plane

        stack.push_async_callback(drain)
        yield Frontend(
            app=WorkerCalls(app, token=host.token, lease=leased, on_finished=host.note),
            listener=models,
            ready=starting,
            drain=drain,
            force=workers.kill,
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """systemd-tmpfiles, which empties temporary folders of what is old, leaves a locked one as it is."""
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
            f"workers need a Unix socket, and there can be none at {str(path)!r}: {exc}; set TMPDIR to a"
            " folder with a shorter path, or server.workers to 1"
        ) from exc
