"""The processes of a benchmark: starts them, reads their CPU time and memory, and ends them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil

from serac_gateway.cli.bench.wire import BenchError, Target

_START_TIMEOUT_S = 300.0
_END_TIMEOUT_S = 30.0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time and memory of a process and its children."""

    cpu_s: float
    resident_bytes: int


class Watched:
    """A running process whose CPU time and memory can be read."""

    def __init__(self, pid: int) -> None:
        """Read the process of this id.

        Raises:
            BenchError: There is none.
        """
        try:
            self._process = psutil.Process(pid)
        except psutil.NoSuchProcess as exc:
            raise BenchError(f"there is no process {pid}") from exc

    @property
    def pid(self) -> int:
        """The process's id."""
        pid: int = self._process.pid
        return pid

    def usage(self) -> Usage:
        """CPU time so far and memory now, of the process and its children."""
        cpu_s, resident = 0.0, 0
        for process in (self._process, *self._process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                cpu_s += times.user + times.system
                resident += process.memory_info().rss
        return Usage(cpu_s=cpu_s, resident_bytes=resident)

    def peak_resident_bytes(self) -> int:
        """The peak of the process's own resident memory, in bytes.

        Raises:
            BenchError: This system does not report it.
        """
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text("ascii", "replace")
        except OSError as exc:
            raise BenchError(f"the peak of a process's memory cannot be read here: {exc.strerror}") from exc
        (peak_kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        return int(peak_kib) * 1_024


class MockProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A mock upstream in a process of its own."""

    target: Target
    watched: Watched


@contextmanager
def running_mock(*, port: int = 0, options: Sequence[str] = ()) -> Iterator[MockProcess]:
    """A running mock upstream; `options` are those of its command line."""
    command = [sys.executable, "-m", "serac_gateway.cli.bench.mock_upstream", "--port", str(port), *options]
    with _ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        listening_on = process.stdout.readline().strip()
        if not listening_on:
            raise BenchError(f"the mock upstream does not start on port {port}; is the port taken?")
        yield MockProcess(
            target=Target(url=f"http://127.0.0.1:{listening_on}/v1"), watched=Watched(process.pid)
        )


class GatewayProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway in a process of its own."""

    url: str
    watched: Watched

    def target(self, namespace: str) -> Target:
        """Its data plane, for requests in `namespace`."""
        return Target(url=f"{self.url}/v1", headers={"x-serac-namespace": namespace})


@contextmanager
def running_gateway(
    folder: Path, *, upstream_url: str, models_from: Path | None = None, **settings: str
) -> Iterator[GatewayProcess]:
    """A ready gateway with its data in `folder`, in front of `upstream_url`.

    Args:
        folder: Its data folder; created if it is missing.
        upstream_url: Up to and with /v1.
        models_from: A data folder whose converted models are used instead of converting them anew.
        settings: Environment variables of the configuration, without ``SERAC_``.

    Raises:
        BenchError: It does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if models_from is not None and (models_from / "models").is_dir():
        with contextlib.suppress(FileExistsError):
            (folder / "models").symlink_to(models_from / "models")
    port = _free_port()
    command = [sys.executable, "-m", "serac_gateway", "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--data-dir", str(folder), "--upstream", upstream_url]
    log = folder / "gateway.log"
    environment = os.environ | {f"SERAC_{name}": value for name, value in settings.items()}
    with log.open("wb") as out:
        started = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    with _ended(started) as process:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _answers(f"{url}/health/ready"):
            if process.poll() is not None or time.monotonic() > deadline:
                words = log.read_text("utf-8", "replace").splitlines()[-3:]
                raise BenchError(f"the gateway does not start; its last words: {' | '.join(words)!r}")
            time.sleep(0.1)
        yield GatewayProcess(url=url, watched=Watched(process.pid))


async def settled(watched: Watched, *, seconds: float = 1.0) -> Usage:
    """CPU time and memory after a pause without requests."""
    await asyncio.sleep(seconds)
    return watched.usage()


@contextmanager
def _ended(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """Yield `process`, and end it in any case."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0):
            return True
    except (urllib.error.URLError, OSError):
        return False
