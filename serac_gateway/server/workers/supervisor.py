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
from serac_gateway.server.workers.rpc_messages import READY, WorkerSettings

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
"""Between the attempts to start a worker in the place of one that died."""
_SLACK_S = 5.0
"""How long after the drain limit a worker may take to end before it is killed."""
_START_LIMIT_S = 120.0
"""A worker that does not serve by then is killed; on a busy machine they take some seconds."""


class _Crew:
    """Workers with the same settings."""

    def __init__(self, settings: WorkerSettings, on_gone: Callable[[], None]) -> None:
        self.settings = settings
        self.on_gone = on_gone
        """Called when the last has ended, once they were told to."""
        self.processes: dict[str, Process | None] = {}
        """Those that have not ended, by name, also while they start; None: not a process yet."""
        self.ending = asyncio.Event()


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
        self._crews: list[_Crew] = []
        """Those that serve, that shall, and that end."""
        self._is_closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def is_running(self, worker: str) -> bool:
        """Whether the worker of that name was started and has not ended."""
        return any(worker in crew.processes for crew in self._crews)

    async def prepare(
        self, settings: WorkerSettings, on_gone: Callable[[], None] = lambda: None
    ) -> Callable[[], None]:
        """Start workers with these settings beside those that serve, and return when all of them serve.

        What it returns is to be called at once, when they shall be the only ones: the others end when their
        requests have. `on_gone` is called when these have ended, in their turn.

        Raises:
            ConfigError: One ended before it served, or all are being ended; then none of them serves.
        """
        crew = _Crew(settings, on_gone)
        self._crews.append(crew)
        if self._is_closed:
            self._end(crew)
        try:
            starts = [self._keep(self._start_one(crew)) for _ in range(self._count)]
            failures = await asyncio.gather(*starts, return_exceptions=True)
        except BaseException:
            self._end(crew)
            raise
        if crew.ending.is_set():
            raise ConfigError("the gateway is ending")
        for failure in failures:
            if failure is not None:
                self._end(crew)
                raise failure
        return lambda: self._take_over(crew)

    async def close(self) -> None:
        """End all when their requests have, at the latest after the drain limit. Idempotent."""
        self._is_closed = True
        self._end(*self._crews)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def kill(self) -> None:
        """End all at once, and their requests with them; `close` waits until they have."""
        for crew in self._crews:
            for process in crew.processes.values():
                if process is not None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()

    def _take_over(self, crew: _Crew) -> None:
        self._end(*(one for one in self._crews if one is not crew))

    async def _start_one(self, crew: _Crew) -> None:
        name = f"worker-{next(self._numbers)}"
        crew.processes[name] = None
        try:
            process = await self._serving(crew, name)
        except BaseException:
            self._forget(crew, name)
            raise
        self._keep(self._watch(crew, name, process))

    async def _serving(self, crew: _Crew, name: str) -> Process:
        if crew.ending.is_set():
            raise ConfigError("the gateway is ending")
        process = crew.processes[name] = await asyncio.create_subprocess_exec(
            # -P: no module of the folder that the gateway was started in is taken for one of ours.
            *(
                sys.executable,
                "-P",
                "-m",
                "serac_gateway.server.workers.worker",
                str(self._listener.fileno()),
            ),
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=[self._listener.fileno()],
            start_new_session=True,  # what the terminal sends is for the model process, which ends them
        )
        if crew.ending.is_set():
            self._keep(_end_in_time(name, process, crew.settings))
        try:
            await _wait_until_it_serves(process, msgspec.structs.replace(crew.settings, worker=name))
        except BaseException:
            await _kill(process)
            raise
        return process

    async def _watch(self, crew: _Crew, name: str, process: Process) -> None:
        status = await process.wait()
        self._forget(crew, name)
        if crew.ending.is_set():
            return
        log.error("%s ended with status %d; another one takes its place", name, status)
        pause_s = _FIRST_PAUSE_S
        while not crew.ending.is_set():
            try:
                await self._start_one(crew)
                return
            except (ConfigError, OSError) as error:
                if crew.ending.is_set():
                    return
                log.error("no worker could be started: %s; trying again in %.1f s", error, pause_s)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(crew.ending.wait(), pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _end(self, *crews: _Crew) -> None:
        for crew in crews:
            if crew.ending.is_set():
                continue
            crew.ending.set()
            self._leave_if_gone(crew)
            for name, process in crew.processes.items():
                if process is not None:
                    self._keep(_end_in_time(name, process, crew.settings))

    def _forget(self, crew: _Crew, name: str) -> None:
        del crew.processes[name]
        self._on_ended(name)
        self._leave_if_gone(crew)

    def _leave_if_gone(self, crew: _Crew) -> None:
        if crew.ending.is_set() and not crew.processes and crew in self._crews:
            self._crews.remove(crew)
            crew.on_gone()

    def _keep(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _wait_until_it_serves(process: Process, settings: WorkerSettings) -> None:
    assert process.stdin is not None
    data = msgspec.msgpack.encode(settings)
    with contextlib.suppress(ConnectionError):  # its status says more
        process.stdin.write(len(data).to_bytes(4, "big") + data)
        await process.stdin.drain()
    try:
        async with asyncio.timeout(_START_LIMIT_S):
            if await _told_ready(process):
                return
            status = await process.wait()
    except TimeoutError as exc:
        raise ConfigError(f"{settings.worker} did not serve within {_START_LIMIT_S:g} s") from exc
    raise ConfigError(
        f"{settings.worker} ended with status {status} before it served; what it wrote above tells why"
    )


async def _told_ready(process: Process) -> bool:
    assert process.stdout is not None
    async for line in process.stdout:  # a library may write there, too
        if line == READY:
            return True
    return False


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
