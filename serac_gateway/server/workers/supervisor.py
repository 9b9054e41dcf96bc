"""Starts the worker processes, replaces those that die or whose configuration is old, and ends them."""

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
"""The pause between two attempts to replace a worker that died, at most."""
_SLACK_S = 5.0
"""A worker is killed when it has not ended this long after the drain limit."""
_START_LIMIT_S = 120.0
"""A worker that does not serve by then is killed; on a busy machine a start takes some seconds."""


class _WorkerSet:
    """Workers with the same settings."""

    def __init__(self, settings: WorkerSettings, on_gone: Callable[[], None]) -> None:
        self.settings = settings
        self.on_gone = on_gone
        """Called when the last has ended, after `ending` was set."""
        self.processes: dict[str, Process | None] = {}
        """The processes that have not ended, by worker name; None: the process is still being started."""
        self.ending = asyncio.Event()


class Supervisor:
    """Keeps `count` worker processes serving on one listening socket. Belongs to one event loop."""

    def __init__(
        self, *, count: int, listener: socket.socket, on_ended: Callable[[str], None] = lambda worker: None
    ) -> None:
        """`on_ended` is called with the name of each worker that has ended."""
        self._count = count
        self._listener = listener
        self._on_ended = on_ended
        self._numbers = itertools.count(1)
        self._sets: list[_WorkerSet] = []
        """The set that serves, one that is being started to replace it, and those that are ending."""
        self._is_closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def is_running(self, worker: str) -> bool:
        """Whether the worker of that name was started and has not ended."""
        return any(worker in workers.processes for workers in self._sets)

    async def prepare(
        self, settings: WorkerSettings, on_gone: Callable[[], None] = lambda: None
    ) -> Callable[[], None]:
        """Start workers with these settings beside those that serve, and return when all of them serve.

        Returns a function to be called at once, which makes the new workers the only ones: the others end
        when their requests have. `on_gone` is called when the new ones have ended, in their turn.

        Raises:
            ConfigError: One ended before it served, or the gateway is ending; then none of them serves.
        """
        workers = _WorkerSet(settings, on_gone)
        self._sets.append(workers)
        if self._is_closed:
            self._end(workers)
        try:
            starts = [self._keep(self._start_worker(workers)) for _ in range(self._count)]
            failures = await asyncio.gather(*starts, return_exceptions=True)
        except BaseException:
            self._end(workers)
            raise
        if workers.ending.is_set():
            raise ConfigError("the gateway is ending")
        for failure in failures:
            if failure is not None:
                self._end(workers)
                raise failure
        return lambda: self._take_over(workers)

    async def close(self) -> None:
        """End every worker when its requests have, at the latest after the drain limit. Idempotent."""
        self._is_closed = True
        self._end(*self._sets)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def kill(self) -> None:
        """Kill every worker, and its requests with it; `close` waits until they have ended."""
        for workers in self._sets:
            for process in workers.processes.values():
                if process is not None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()

    def _take_over(self, workers: _WorkerSet) -> None:
        self._end(*(others for others in self._sets if others is not workers))

    async def _start_worker(self, workers: _WorkerSet) -> None:
        name = f"worker-{next(self._numbers)}"
        workers.processes[name] = None
        try:
            process = await self._serving(workers, name)
        except BaseException:
            self._forget(workers, name)
            raise
        self._keep(self._watch(workers, name, process))

    async def _serving(self, workers: _WorkerSet, name: str) -> Process:
        if workers.ending.is_set():
            raise ConfigError("the gateway is ending")
        process = workers.processes[name] = await asyncio.create_subprocess_exec(
            # -P: modules in the folder that the gateway was started in must not shadow ours.
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
            start_new_session=True,  # a terminal signals the model process, which ends its workers
        )
        if workers.ending.is_set():
            self._keep(_end_in_time(name, process, workers.settings))
        try:
            await _wait_until_it_serves(process, msgspec.structs.replace(workers.settings, worker=name))
        except BaseException:
            await _kill(process)
            raise
        return process

    async def _watch(self, workers: _WorkerSet, name: str, process: Process) -> None:
        status = await process.wait()
        self._forget(workers, name)
        if workers.ending.is_set():
            return
        log.error("%s ended with status %d; another one takes its place", name, status)
        pause_s = _FIRST_PAUSE_S
        while not workers.ending.is_set():
            try:
                await self._start_worker(workers)
                return
            except (ConfigError, OSError) as error:
                if workers.ending.is_set():
                    return
                log.error("no worker could be started: %s; trying again in %.1f s", error, pause_s)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(workers.ending.wait(), pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _end(self, *sets: _WorkerSet) -> None:
        for workers in sets:
            if workers.ending.is_set():
                continue
            workers.ending.set()
            self._leave_if_gone(workers)
            for name, process in workers.processes.items():
                if process is not None:
                    self._keep(_end_in_time(name, process, workers.settings))

    def _forget(self, workers: _WorkerSet, name: str) -> None:
        del workers.processes[name]
        self._on_ended(name)
        self._leave_if_gone(workers)

    def _leave_if_gone(self, workers: _WorkerSet) -> None:
        if workers.ending.is_set() and not workers.processes and workers in self._sets:
            self._sets.remove(workers)
            workers.on_gone()

    def _keep(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _wait_until_it_serves(process: Process, settings: WorkerSettings) -> None:
    assert process.stdin is not None
    data = msgspec.msgpack.encode(settings)
    with contextlib.suppress(ConnectionError):  # the worker ended; its exit status says more
        process.stdin.write(len(data).to_bytes(4, "big") + data)
        await process.stdin.drain()
    try:
        async with asyncio.timeout(_START_LIMIT_S):
            if await _reports_ready(process):
                return
            status = await process.wait()
    except TimeoutError as exc:
        raise ConfigError(f"{settings.worker} did not serve within {_START_LIMIT_S:g} s") from exc
    raise ConfigError(f"{settings.worker} ended with status {status} before it served; see its output above")


async def _reports_ready(process: Process) -> bool:
    assert process.stdout is not None
    async for line in process.stdout:  # other lines may come from a library
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
