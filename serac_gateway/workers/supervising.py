"""Starts the workers, starts another for each that dies, replaces them, and ends them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Coroutine

import msgspec

from serac_gateway.errors import ConfigError
from serac_gateway.workers.messages import READY, WorkerSettings

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
"""Between the attempts to start a worker in the place of one that died."""
_SLACK_S = 5.0
"""How long after the drain limit a worker may take to end before it is killed."""


class _Crew:
    """Workers with the same settings."""

    def __init__(self, settings: WorkerSettings, on_gone: Callable[[], None]) -> None:
        self.settings = settings
        self.on_gone = on_gone
        """Called when the last has ended, once they were told to."""
        self.processes: dict[str, Process] = {}
        """Those that serve, by name, the oldest first."""
        self.is_ending = False


class Workers:
    """`count` processes that serve on one listening socket. Belongs to one event loop."""

    def __init__(
        self, *, count: int, listener: socket.socket, on_ended: Callable[[str], None] = lambda worker: None
    ) -> None:
        """`on_ended` is told the name of each that has ended."""
        self._count = count
        self._listener = listener
        self._on_ended = on_ended
        self._numbers = itertools.count(1)
        self._crew: _Crew | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def process_ids(self) -> list[int]:
        """Of the workers that serve, the oldest first."""
        return [] if self._crew is None else [process.pid for process in self._crew.processes.values()]

    async def prepare(
        self, settings: WorkerSettings, on_gone: Callable[[], None] = lambda: None
    ) -> Callable[[], None]:
        """Start workers with these settings beside those that serve, and return when all of them serve.

        What it returns is to be called when they shall be the only ones: the others end when their requests
        have. `on_gone` is called when these have ended, in their turn.

        Raises:
            ConfigError: One ended before it served; then none of them serves.
        """
        crew = _Crew(settings, on_gone)
        started = await asyncio.gather(
            *(self._start_one(crew) for _ in range(self._count)), return_exceptions=True
        )
        for one in started:
            if isinstance(one, BaseException):
                self._end(crew)
                raise one
        return lambda: self._take_over(crew)

    async def close(self) -> None:
        """End all when their requests have, at the latest after the drain limit. Idempotent."""
        if self._crew is not None:
            self._end(self._crew)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _take_over(self, crew: _Crew) -> None:
        before, self._crew = self._crew, crew
        if before is not None:
            self._end(before)

    async def _start_one(self, crew: _Crew) -> None:
        name = f"worker-{next(self._numbers)}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "serac_gateway.workers.process", str(self._listener.fileno())),
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=[self._listener.fileno()],
        )
        try:
            await _wait_until_it_serves(process, msgspec.structs.replace(crew.settings, worker=name))
        except BaseException:
            await _kill(process)
            raise
        crew.processes[name] = process
        self._keep(self._watch(crew, name, process))
        if crew.is_ending:
            self._keep(_end_in_time(name, process, crew.settings))

    async def _watch(self, crew: _Crew, name: str, process: Process) -> None:
        status = await process.wait()
        del crew.processes[name]
        self._on_ended(name)
        if crew.is_ending:
            if not crew.processes:
                crew.on_gone()
            return
        log.error("%s ended with status %d; another one takes its place", name, status)
        pause_s = _FIRST_PAUSE_S
        while not crew.is_ending:
            try:
                await self._start_one(crew)
                return
            except (ConfigError, OSError) as error:
                log.error("no worker could be started: %s; trying again in %.1f s", error, pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _end(self, crew: _Crew) -> None:
        if crew.is_ending:
            return
        crew.is_ending = True
        if not crew.processes:
            crew.on_gone()
        for name, process in crew.processes.items():
            self._keep(_end_in_time(name, process, crew.settings))

    def _keep(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _wait_until_it_serves(process: Process, settings: WorkerSettings) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    data = msgspec.msgpack.encode(settings)
    with contextlib.suppress(ConnectionError):  # its status says more
        process.stdin.write(len(data).to_bytes(4, "big") + data)
        await process.stdin.drain()
    if await process.stdout.readline() != READY:
        status = await process.wait()
        raise ConfigError(
            f"{settings.worker} ended with status {status} before it served; what it wrote above tells why"
        )


async def _end_in_time(name: str, process: Process, settings: WorkerSettings) -> None:
    limit_s = settings.config.server.drain_timeout_s + _SLACK_S
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), limit_s)
    except TimeoutError:
        log.warning("%s did not end within %g s and is killed", name, limit_s)
        await _kill(process)


async def _kill(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
