"""A commit is acknowledged only once it is on the disk: shown by delayed and failing fdatasync calls.

strace injects the faults into the store's server. SIGKILL cannot show this: the kernel keeps what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis

from serac_gateway.errors import StoreUnavailableError
from serac_gateway.stores.records import Action
from tests.contracts.edit_store_calls import NS, new
from tests.contracts.following_replicas import put
from tests.contracts.served_stores import RedisServed, ServedStore

DELAY_S = 0.5


def server_pid(served: ServedStore) -> int:
    with redis.Redis.from_url(served.url) as client:
        return int(client.info("server")["process_id"])


@asynccontextmanager
async def injected(pid: int, fault: str) -> AsyncIterator[None]:
    """Every fsync and fdatasync of the process, in all its threads, has this fault."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace on PATH (Debian: apt-get install strace)")
    calls = "fsync,fdatasync"
    process = await asyncio.create_subprocess_exec(
        *(strace, "-f", "-p", str(pid), "-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"), stderr=PIPE
    )
    try:
        assert process.stderr is not None
        line = await asyncio.wait_for(process.stderr.readline(), 20)
        if b"attached" not in line:
            pytest.skip(f"strace cannot attach to a process here: {line.decode().strip()}")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()  # the kernel detaches it; on SIGINT it waits for threads of an ended server
        await process.communicate()


async def test_a_commit_waits_until_it_is_on_the_disk(served: ServedStore) -> None:
    await put(served.store, Action.ADD, new("before"))
    async with injected(server_pid(served), f"delay_enter={int(DELAY_S * 1e6)}"):
        started_s = time.monotonic()
        await put(served.store, Action.ADD, new("a"))
        assert time.monotonic() - started_s >= DELAY_S


async def test_a_commit_that_cannot_be_made_durable_is_not_acknowledged(served: ServedStore) -> None:
    await put(served.store, Action.ADD, new("before"))
    async with injected(server_pid(served), "error=EIO"):
        with pytest.raises(StoreUnavailableError):
            await put(served.store, Action.ADD, new("a"))
    if isinstance(served, RedisServed):
        served.kill()  # it has ended by itself; this takes its exit status
    await served.wait_until_back()
    assert (await served.store.get(NS, "before")).id == "before"


async def test_a_server_that_syncs_once_a_second_does_not_pass(served: ServedStore) -> None:
    """The check itself: with another policy of the server the commit returns before it is on the disk."""
    await put(served.store, Action.ADD, new("before"))
    with redis.Redis.from_url(served.url) as client:
        client.config_set("appendfsync", "everysec")
    async with injected(server_pid(served), f"delay_enter={int(DELAY_S * 1e6)}"):
        started_s = time.monotonic()
        await put(served.store, Action.ADD, new("a"))
        assert time.monotonic() - started_s < DELAY_S
