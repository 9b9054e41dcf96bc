"""Who is live, and how far each has read: what every store's registry of gateways does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import redis

from serac_gateway.edit_index.heartbeat import ReplicaHeartbeat
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.log_chain import LogHead
from serac_gateway.stores.ports import NOTHING_APPLIED, AppliedLog, Replica
from serac_gateway.stores.records import Action
from tests.contracts.edit_store_calls import NS, new
from tests.contracts.following_replicas import put
from tests.contracts.served_stores import ServedStore


def replica(name: str) -> Replica:
    return Replica(id=f"id-{name}", name=name, started_at=datetime(2030, 1, 1, tzinfo=UTC))


def head(number: int) -> LogHead:
    return LogHead(log_id=f"{number}-0", digest="", length=number)


async def test_a_gateway_is_live_while_its_announcements_are_fresh(edit_store: EditStore) -> None:
    registry = edit_store.replicas()
    assert await registry.live() == {}
    assert not await registry.announce(replica("a"), {}, ttl_s=0.3)
    assert await registry.announce(replica("a"), {}, ttl_s=0.3)
    await registry.announce(replica("b"), {}, ttl_s=30)
    assert await registry.live() == {"id-a": replica("a"), "id-b": replica("b")}
    await asyncio.sleep(0.35)
    assert await registry.live() == {"id-b": replica("b")}
    assert await registry.applied(NS) == {"id-b": NOTHING_APPLIED}


async def test_positions_add_up_until_the_gateway_is_forgotten(edit_store: EditStore) -> None:
    registry = edit_store.replicas()
    await registry.announce(replica("a"), {"one": head(1), "two": head(2)}, ttl_s=0.3)
    await registry.announce(replica("a"), {"two": head(3)}, ttl_s=0.3)
    assert await registry.applied("one") == {"id-a": AppliedLog(log_id="1-0", length=1)}
    assert await registry.applied("two") == {"id-a": AppliedLog(log_id="3-0", length=3)}
    assert await registry.applied("three") == {"id-a": NOTHING_APPLIED}
    await asyncio.sleep(0.35)
    assert not await registry.announce(replica("a"), {"two": head(4)}, ttl_s=30)
    assert await registry.applied("one") == {"id-a": NOTHING_APPLIED}


async def test_nobody_waits_for_a_gateway_that_has_withdrawn(edit_store: EditStore) -> None:
    registry = edit_store.replicas()
    await registry.announce(replica("a"), {"one": head(1)}, ttl_s=30)
    await registry.withdraw("id-a")
    await registry.withdraw("id-a")
    assert (await registry.live(), await registry.applied("one")) == ({}, {})


async def test_gateways_are_in_no_namespaces_way(edit_store: EditStore) -> None:
    await edit_store.replicas().announce(replica("a"), {NS: head(1)}, ttl_s=30)
    assert await edit_store.namespaces() == []
    await put(edit_store, Action.ADD, new("a"))
    assert await edit_store.namespaces() == [NS]


async def test_an_announcer_publishes_changes_at_once_and_withdraws_at_the_end(edit_store: EditStore) -> None:
    positions = {NS: head(1)}
    registry = edit_store.replicas()
    heartbeat = ReplicaHeartbeat(registry, lambda: positions)
    await heartbeat.start()
    (applied,) = (await registry.applied(NS)).values()
    assert applied.length == 1
    positions[NS] = head(2)
    heartbeat.note_progress()
    async with asyncio.timeout(0.5):
        while [position.length for position in (await registry.applied(NS)).values()] != [2]:
            await asyncio.sleep(0.005)
    await heartbeat.close()
    await heartbeat.close()
    assert await registry.live() == {}


async def test_an_announcer_whose_store_forgot_it_publishes_everything_again(
    served: ServedStore, admin: redis.Redis
) -> None:
    registry = served.store.replicas()
    heartbeat = ReplicaHeartbeat(registry, lambda: {"one": head(1), "two": head(2)})
    await heartbeat.start()
    admin.flushall()
    async with asyncio.timeout(3):
        while len(await registry.applied("one")) == 0:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.05)
    assert [position.length for position in (await registry.applied("two")).values()] == [2]
    await heartbeat.close()


async def test_an_announcer_survives_its_store(served: ServedStore) -> None:
    registry = served.store.replicas()
    heartbeat = ReplicaHeartbeat(registry, dict)
    await heartbeat.start()
    served.kill()
    await asyncio.sleep(1.5)
    await served.wait_until_back()
    async with asyncio.timeout(5):
        while heartbeat.replica.id not in await registry.live():
            await asyncio.sleep(0.02)
    await heartbeat.close()
    assert heartbeat.replica.id not in await registry.live()  # the same one that had survived


async def test_ids_of_gateways_that_died_do_not_pile_up(served: ServedStore, admin: redis.Redis) -> None:
    registry = served.store.replicas()
    for number in range(5):
        await registry.announce(replica(f"dead{number}"), {}, ttl_s=0.01)
    await asyncio.sleep(0.05)
    await registry.announce(replica("alive"), {}, ttl_s=30)
    assert admin.smembers("serac:{@replicas}:ids") == {b"id-alive"}
