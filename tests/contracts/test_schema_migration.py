"""A store of schema 1 becomes one of schema 2, with every entry of its logs chained."""

from __future__ import annotations

import asyncio

import pytest
import redis

from serac_gateway.errors import ConfigError
from serac_gateway.stores.log_verification import verify_log
from serac_gateway.stores.records import Action
from serac_gateway.stores.redis.keys import NamespaceKeys
from serac_gateway.stores.redis.records import version_record
from serac_gateway.stores.redis.store import RedisStore
from tests.contracts.edit_store_calls import NS, add, commit_of_all, new, next_of, snapshot, update
from tests.contracts.served_stores import ServedStore

pytestmark = pytest.mark.parametrize("served", ["redis_server"], indirect=True)


def make_schema_1(admin: redis.Redis, *namespaces: str) -> None:
    """What this store would be if schema 1 had written it: no salts, no digests, no heads."""
    for keys in map(NamespaceKeys, namespaces):
        entries = admin.xrange(keys.log)
        admin.delete(keys.log, keys.head)
        for log_id, fields in entries:
            kept = {name: fields[name] for name in (b"action", b"edit_id", b"version")}
            admin.xadd(keys.log, kept, id=log_id)
            versions = keys.versions(fields[b"edit_id"].decode())
            for index, element in enumerate(admin.lrange(versions, 0, -1)):
                admin.lset(versions, index, version_record(element).record)
    admin.set("serac:schema", 1)


async def fill(store: RedisStore, count: int) -> None:
    for start in range(0, count, 1_000):
        edits = [new(f"e{number}", author="Ann") for number in range(start, min(count, start + 1_000))]
        await store.commit(NS, commit_of_all(*((Action.ADD, edit) for edit in edits)))


async def test_the_log_gets_its_chain_and_all_else_stays(served: ServedStore, admin: redis.Redis) -> None:
    first = new("a", author="Ann", reason="news")
    await add(served.store, first)
    await update(served.store, next_of(first, target_new="Bea"))
    await add(served.store, new("a", namespace="other"))
    before = {name: await served.store.log(name) for name in (NS, "other")}
    stored = await snapshot(served.store)
    make_schema_1(admin, NS, "other")
    store = await RedisStore.open(served.url)
    for name, entries in before.items():
        after = await store.log(name)
        assert [
            (entry.log_id, entry.action, entry.version, entry.at, entry.author, entry.reason)
            for entry in after
        ] == [
            (entry.log_id, entry.action, entry.version, entry.at, entry.author, entry.reason)
            for entry in entries
        ]
        assert (await verify_log(store, name)).length == len(entries)
    assert (await snapshot(store)).keys() == stored.keys()
    assert admin.get("serac:schema") == b"2"
    await update(store, next_of(next_of(first)))
    assert (await verify_log(store, NS)).length == 3
    await store.close()


async def test_it_goes_on_where_it_was_broken_off(served: ServedStore, admin: redis.Redis) -> None:
    await fill(served.store, 3_000)
    make_schema_1(admin, NS)
    opening = asyncio.ensure_future(RedisStore.open(served.url))
    while not admin.exists(NamespaceKeys(NS).log + ":2"):
        await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert admin.get("serac:schema") == b"1"
    begun = admin.xlen(NamespaceKeys(NS).log + ":2")
    assert 0 < begun < 3_000
    store = await RedisStore.open(served.url)
    assert (await verify_log(store, NS)).length == 3_000
    assert not admin.exists(NamespaceKeys(NS).log + ":2")
    await store.close()


async def test_of_two_gateways_that_start_at_a_time_one_waits(
    served: ServedStore, admin: redis.Redis
) -> None:
    await fill(served.store, 1_200)
    make_schema_1(admin, NS)
    stores = await asyncio.gather(*(RedisStore.open(served.url) for _ in range(3)))
    for store in stores:
        assert (await verify_log(store, NS)).length == 1_200
        await store.close()


async def test_a_log_whose_record_is_missing_is_refused(served: ServedStore, admin: redis.Redis) -> None:
    await fill(served.store, 3)
    make_schema_1(admin, NS)
    admin.delete(NamespaceKeys(NS).versions("e1"))
    with pytest.raises(ConfigError, match=r"version 1 of edit 'e1' in namespace .*, which is not there"):
        await RedisStore.open(served.url)
    assert admin.get("serac:schema") == b"1"
