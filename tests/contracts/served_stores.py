"""Edit stores with a server of their own behind them, to be upset by a test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
import redis

from serac_gateway.errors import StoreUnavailableError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.redis.store import RedisStore


class RedisServer:
    """Debian's redis-server as we ask people to run it: append-only file, fsync always, no eviction."""

    def __init__(self, folder: Path, *, arguments: tuple[str, ...] = ()) -> None:
        """Prepare one in `folder`; skips the test, with the reason, where there is no redis-server."""
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.skip("no redis-server on PATH (Debian: apt-get install redis-server)")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.folder = folder
        self.binary = binary
        self._arguments = arguments
        self._command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        self._command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self._command += ["--maxmemory-policy", "noeviction", *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def option(self, name: str) -> str:
        """What it was given beside our own arguments."""
        return self._arguments[self._arguments.index(name) + 1]

    def start(self) -> None:
        with (self.folder / "redis.log").open("ab") as log_file:
            self._process = subprocess.Popen(self._command, stdout=log_file, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 20
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except redis.exceptions.AuthenticationError:
                    return
                except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
                    assert self._process.poll() is None, (self.folder / "redis.log").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                else:
                    return

    def client(self) -> redis.Redis:
        """One that does not retry."""
        return redis.Redis(port=self.port, retry=None)

    def pause(self) -> None:
        """SIGSTOP: connections stay open, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class ServedStore(Protocol):
    """A store and the server behind it."""

    url: str
    folder: Path
    store: EditStore

    def kill(self) -> None:
        """SIGKILL the server."""

    async def wait_until_back(self) -> None:
        """Return when the store works again, which may need someone to start the server."""


class RedisServed:
    def __init__(self, server: RedisServer, store: EditStore) -> None:
        self.url, self.folder, self.store = server.url, server.folder, store
        self.kill = server.kill
        self._server = server

    async def wait_until_back(self) -> None:
        self._server.start()


class EmbeddedServed:
    def __init__(self, folder: Path, store: EditStore) -> None:
        self.folder, self.store = folder, store
        self.url = f"unix://{folder}/valkey.sock"

    def kill(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            while True:  # until it is reaped; the signal works in its own time
                os.kill(pid, 0)
                time.sleep(0.001)

    async def wait_until_back(self) -> None:
        async with asyncio.timeout(20):
            while True:
                try:
                    return await self.store.ping()
                except StoreUnavailableError:
                    await asyncio.sleep(0.01)


@asynccontextmanager
async def serve(kind: str, folder: Path) -> AsyncIterator[ServedStore]:
    if kind == "redis_server":
        redis_server = RedisServer(folder)
        redis_server.start()
        try:
            store = await RedisStore.open(redis_server.url, idempotency_ttl_s=1)
            yield RedisServed(redis_server, store)
            await store.close()
        finally:
            redis_server.kill()
    else:
        store = await RedisStore.open_embedded(folder, idempotency_ttl_s=1)
        try:
            yield EmbeddedServed(folder, store)
        finally:
            await store.close()
