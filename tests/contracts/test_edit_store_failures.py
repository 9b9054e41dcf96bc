"""What edit stores do when their server fails, or the gateway itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest
import redis

from serac_gateway.errors import EditNotFoundError, StoreUnavailableError
from serac_gateway.stores.open import open_store
from serac_gateway.stores.records import LOG_START
from serac_gateway.stores.redis.connection import RedisConnection
from serac_gateway.stores.redis.store import RedisStore
from tests.contracts.edit_store_calls import NS, add, new, next_of, snapshot, update, walk
from tests.contracts.served_stores import ServedStore


async def test_an_acknowledged_edit_survives_sigkill_of_the_server(served: ServedStore) -> None:
    edits = [new(f"e{number:02d}") for number in range(25)]
    for edit in edits:
        await add(served.store, edit)
    served.kill()
    await served.wait_until_back()
    assert await walk(served.store, limit=100) == edits
    assert len(await snapshot(served.store)) == 25
    assert len(await served.store.log(NS)) == 25


async def test_commits_under_sigkill_are_whole_and_none_acknowledged_is_lost(served: ServedStore) -> None:
    acknowledged: list[str] = []

    async def write(writer: int) -> None:
        for number in range(10_000):
            await add(served.store, new(f"w{writer}-{number}"))
            acknowledged.append(f"w{writer}-{number}")

    writers = [asyncio.create_task(write(writer)) for writer in range(8)]
    await asyncio.sleep(0.3)
    served.kill()
    outcomes = await asyncio.gather(*writers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError] * 8
    await served.wait_until_back()
    stored = await snapshot(served.store)
    assert acknowledged
    assert set(acknowledged) <= set(stored)
    entries = []
    while more := await served.store.log(NS, after=entries[-1].log_id if entries else LOG_START):
        entries += more
    assert sorted(entry.edit_id for entry in entries) == sorted(stored)


async def test_the_same_store_works_again_when_its_server_is_back(served: ServedStore) -> None:
    await add(served.store, new("a"))
    served.kill()
    with pytest.raises(StoreUnavailableError, match="the edit store at") as failure:
        await served.store.get(NS, "a")
    assert failure.value.__cause__ is not None
    await served.wait_until_back()
    assert (await served.store.get(NS, "a")).id == "a"
    await asyncio.gather(*(add(served.store, new(f"e{number}")) for number in range(50)))


async def test_a_server_that_forgot_the_script_is_given_it_again(
    served: ServedStore, admin: redis.Redis
) -> None:
    await add(served.store, new("a"))
    admin.script_flush()
    await add(served.store, new("b"))
    assert len(await served.store.log(NS)) == 2


async def test_a_full_server_refuses_writes_and_stores_no_part(
    served: ServedStore, admin: redis.Redis
) -> None:
    await add(served.store, new("a"))
    admin.config_set("maxmemory", 1)
    with pytest.raises(StoreUnavailableError, match=r"maxmemory"):
        await add(served.store, new("b"), key="k")
    assert (await served.store.get(NS, "a")).id == "a", "reading goes on"
    admin.config_set("maxmemory", 0)
    with pytest.raises(EditNotFoundError):
        await served.store.get(NS, "b")
    assert not (await add(served.store, new("b"), key="k")).replayed


async def test_a_read_only_replica_refuses_writes_in_words(served: ServedStore, admin: redis.Redis) -> None:
    await add(served.store, new("a"))
    admin.replicaof("127.0.0.1", "1")
    with pytest.raises(StoreUnavailableError, match="name its primary"):
        await add(served.store, new("b"))
    admin.replicaof("NO", "ONE")
    await add(served.store, new("b"))


async def test_a_server_that_cannot_persist_refuses_writes_in_its_own_words(
    served: ServedStore, admin: redis.Redis
) -> None:
    await add(served.store, new("a"))
    (served.folder / "dump.rdb").mkdir()  # so that saving fails
    admin.config_set("save", "3600 1")
    admin.bgsave()
    while admin.info("persistence")["rdb_last_bgsave_status"] == "ok":
        await asyncio.sleep(0.01)
    with pytest.raises(StoreUnavailableError, match="MISCONF"):
        await add(served.store, new("b"))
    admin.config_set("save", "")
    await add(served.store, new("b"))


async def test_too_few_replicas_refuse_writes_in_the_servers_words(
    served: ServedStore, admin: redis.Redis
) -> None:
    await add(served.store, new("a"))
    admin.config_set("min-replicas-to-write", 1)
    with pytest.raises(StoreUnavailableError, match="NOREPLICAS"):
        await add(served.store, new("b"))


async def test_a_namespace_whose_first_commit_failed_is_not_listed(
    served: ServedStore, admin: redis.Redis
) -> None:
    with pytest.raises(EditNotFoundError):
        await update(served.store, next_of(new("a", namespace="tried")))
    admin.sadd("serac:namespaces", "tried")  # as left by a gateway that ended before its commit
    assert await served.store.namespaces() == []
    await add(served.store, new("a", namespace="tried"))
    assert await served.store.namespaces() == ["tried"]


async def test_close_twice_is_once(served: ServedStore) -> None:
    await add(served.store, new("a"))
    assert connections_of_ours(served.url) > 0
    await served.store.close()
    await served.store.close()
    assert connections_of_ours(served.url) == 0


def connections_of_ours(url: str) -> int:
    """How many a gateway holds; the embedded server has ended with its store."""
    try:
        with redis.Redis.from_url(url, retry=None) as client:
            return sum(connection["name"] == "serac_gateway" for connection in client.client_list())
    except redis.ConnectionError:
        return 0


@pytest.mark.parametrize("served", ["redis_server"], indirect=True)
async def test_close_waits_for_a_commit_whose_caller_has_left(
    served: ServedStore, admin: redis.Redis
) -> None:
    await add(served.store, new("a"))
    admin.client_pause(300, all=True)
    task = asyncio.create_task(add(served.store, new("b")))
    await asyncio.sleep(0.05)
    task.cancel()
    await served.store.close()
    assert task.cancelled()
    again = await RedisStore.open(served.url)
    assert (await again.get(NS, "b")).id == "b"
    await again.close()


class ReplyEater:
    """A proxy that passes commands on to the server, and once hangs up instead of passing a reply back."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.command: bytes | None = None
        """Whose next reply is lost."""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._url.removeprefix("redis://").removesuffix("/0").split(":")
        server_reader, server_writer = await asyncio.open_connection(host, int(port))
        while request := await reader.read(1_000_000):
            server_writer.write(request)
            reply = await server_reader.read(1_000_000)
            if self.command is not None and self.command in request:
                self.command = None
                break
            writer.write(reply)
        for stream in (server_writer, writer):
            stream.close()


@pytest.mark.parametrize("served", ["redis_server"], indirect=True)
async def test_a_commit_whose_reply_is_lost_is_not_sent_again_by_itself(served: ServedStore) -> None:
    eater = ReplyEater(served.url)
    async with await asyncio.start_server(eater.connected, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        store = await RedisStore.open(f"redis://127.0.0.1:{port}/0")
        first = new("a")
        await add(store, first)
        eater.command = b"EVALSHA"
        with pytest.raises(StoreUnavailableError):
            await update(store, next_of(first), key="k", fingerprint="1")
        assert len(await store.versions(NS, "a")) == 2, "it was made, once"
        again = await update(store, next_of(first), key="k", fingerprint="1")
        assert (again.changes[0].version, again.replayed) == (2, True)
        await store.close()


@pytest.mark.parametrize("served", ["redis_server"], indirect=True)
@pytest.mark.parametrize("repeatable", [True, False])
async def test_only_a_repeatable_write_is_sent_again_when_its_reply_is_lost(
    served: ServedStore, repeatable: bool
) -> None:
    eater = ReplyEater(served.url)
    async with await asyncio.start_server(eater.connected, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        connection = await RedisConnection.open(f"redis://127.0.0.1:{port}/0")
        eater.command = b"INCR"
        writing = connection.write("INCR", "serac:{test}:count", repeatable=repeatable)
        if repeatable:
            assert await writing == 2
        else:
            with pytest.raises(StoreUnavailableError):
                await writing
        assert int(await connection.read("GET", "serac:{test}:count")) == (2 if repeatable else 1)
        await connection.close()


GATEWAY = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    import numpy as np
    from serac_gateway.domain.edits import EditDraft, first_version
    from serac_gateway.stores.records import Action, Change, Commit, FormVectors
    from serac_gateway.stores.open import open_store

    async def main():
        store = await open_store(None, Path(sys.argv[1]))
        for number in range(100_000):
            edit = first_version(EditDraft(id=f"e{number}", prompt="p", target_new="t"), namespace="default")
            vectors = FormVectors(fingerprint="x", vectors_FD=np.ones((1, 3), np.float32))
            change = Change(action=Action.ADD, edit=edit, vectors=vectors)
            await store.commit("default", Commit(changes=(change,)))
            print(number, flush=True)

    asyncio.run(main())
""")


async def test_an_acknowledged_edit_survives_sigkill_of_the_gateway(tmp_path: Path) -> None:
    for round_number in range(3):
        folder = tmp_path / str(round_number)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", GATEWAY, str(folder), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        acknowledged = [await process.stdout.readline() for _ in range(20)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += (await process.stdout.read()).splitlines()
        store = await open_store(None, folder)  # at once, while the dead one's server may still be ending
        try:
            stored = await snapshot(store)
            assert {f"e{number}" for number in range(len(acknowledged))} <= set(stored)
            assert len(stored) <= len(acknowledged) + 1
            assert len(await store.log(NS, limit=100_000)) == len(stored)
        finally:
            await store.close()
            await process.wait()
