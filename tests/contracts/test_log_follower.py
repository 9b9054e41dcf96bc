"""What every gateway sees of what another one commits, over every store."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis

from serac_gateway.domain.edits import EditState, retired, tombstone
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import LOG_START, Action, Commit
from tests.contracts.edit_store_calls import NS, commit_of, new, next_of
from tests.contracts.following_replicas import (
    FollowingReplica,
    assert_equals_brute_force,
    following,
    made,
    put,
    within,
)
from tests.contracts.served_stores import ServedStore


async def test_a_commit_of_another_gateway_is_in_force_within_a_second(edit_store: EditStore) -> None:
    async with following(edit_store) as replica:
        edit = new("a")
        await put(edit_store, Action.ADD, edit)
        await within(1, lambda: replica.target("a") == "Ann")
        took_s = []
        for number in range(5):
            edit = next_of(edit, target_new=f"Bea {number}")
            await put(edit_store, Action.UPDATE, edit)
            took_s.append(await within(1, lambda: replica.target("a") == edit.target_new))  # noqa: B023
        assert min(took_s) < 0.1, "it does not wait for its next look"
        await put(edit_store, Action.RETIRE, retired(edit))
        await within(1, lambda: replica.target("a") is None)
        await assert_equals_brute_force(replica.live, edit_store)


async def test_a_namespace_born_later_is_followed_too(edit_store: EditStore) -> None:
    async with following(edit_store) as replica:
        await put(edit_store, Action.ADD, new("a", namespace="born-later"))
        await within(1, lambda: replica.target("a", "born-later") == "Ann")
        head = await edit_store.log_head("born-later")
        await within(1, lambda: replica.live.position("born-later") == head)


async def test_what_is_committed_while_the_snapshot_is_read_is_not_missed(edit_store: EditStore) -> None:
    for number in range(300):
        await put(edit_store, Action.ADD, new(f"e{number:03d}"))
    replica = FollowingReplica(edit_store)

    async def disturb() -> None:
        for number in range(40):
            edit = new(f"e{number * 7:03d}")
            await put(edit_store, Action.RETIRE, retired(edit))
            await put(edit_store, Action.ADD, new(f"b{number}"))

    try:
        await asyncio.gather(disturb(), replica.start())
        head = await edit_store.log_head(NS)
        # By the log's end: the count is 300 at times while commits are still to be applied. The limit is for
        # a busy machine; how soon a commit arrives is measured above.
        await within(20, lambda: replica.live.position(NS) == head)
        assert replica.live.count(NS) == 300
        await assert_equals_brute_force(replica.live, edit_store)
    finally:
        await replica.follower.close()


async def test_a_purged_edit_is_gone_everywhere(edit_store: EditStore) -> None:
    edit = new("a", target_new="secret")
    await put(edit_store, Action.ADD, edit)
    async with following(edit_store) as replica:
        assert replica.target("a") == "secret"
        gone = tombstone(next_of(edit))
        await edit_store.commit(NS, commit_of(Action.PURGE, gone))
        await within(1, lambda: replica.target("a") is None)


async def test_several_changes_of_one_commit_arrive_together(edit_store: EditStore) -> None:
    old = [new(f"e{number}", target_new="old") for number in range(20)]
    await edit_store.commit(NS, Commit(changes=tuple(made(Action.ADD, edit).changes[0] for edit in old)))
    async with following(edit_store) as replica:
        changes = [made(Action.UPDATE, next_of(edit, target_new="new")).changes[0] for edit in old]
        await edit_store.commit(NS, Commit(changes=tuple(changes)))
        seen: set[frozenset[str | None]] = set()
        until_s = time.monotonic() + 0.5
        while time.monotonic() < until_s:
            # One call for all: reading edit by edit could be interrupted by the thread that applies them.
            seen.add(frozenset(edit.target_new for edit in replica.live.all(NS)))
            await asyncio.sleep(0)
        assert seen <= {frozenset({"old"}), frozenset({"new"})}
        assert replica.target("e0") == "new"


async def test_more_entries_than_fit_one_page_are_all_applied(edit_store: EditStore) -> None:
    async with following(edit_store) as replica:
        for start in range(0, 1_500, 300):
            changes = [made(Action.ADD, new(f"e{start + n}")).changes[0] for n in range(300)]
            await edit_store.commit(NS, Commit(changes=tuple(changes)))
        await within(3, lambda: replica.live.position(NS).length == 1_500)
        await assert_equals_brute_force(replica.live, edit_store)


async def test_a_restored_older_store_is_read_anew(served: ServedStore, admin: redis.Redis) -> None:
    edit = new("a")
    await put(served.store, Action.ADD, edit)
    await put(served.store, Action.ADD, new("b"))
    backup = {key: admin.dump(key) for key in admin.keys("serac:*")}
    await put(served.store, Action.UPDATE, next_of(edit, target_new="Bea"))
    await put(served.store, Action.ADD, new("c"))
    async with following(served.store) as replica:
        assert (replica.target("a"), replica.target("c")) == ("Bea", "Ann")
        admin.flushall()
        for key, dumped in backup.items():
            admin.restore(key, 0, dumped)
        await within(3, lambda: replica.target("a") == "Ann" and replica.target("c") is None)
        await assert_equals_brute_force(replica.live, served.store)
        await put(served.store, Action.UPDATE, next_of(edit, target_new="Cid"))
        await within(1, lambda: replica.target("a") == "Cid")


async def test_a_restored_store_that_went_on_at_once_is_noticed_by_its_chain(
    served: ServedStore, admin: redis.Redis
) -> None:
    await put(served.store, Action.ADD, new("a"))
    backup = {key: admin.dump(key) for key in admin.keys("serac:*")}
    await put(served.store, Action.ADD, new("lost"))
    async with following(served.store) as replica:
        admin.flushall()
        for key, dumped in backup.items():
            admin.restore(key, 0, dumped)
        await put(served.store, Action.ADD, new("c"))
        await within(3, lambda: replica.target("c") == "Ann")
        assert replica.target("lost") is None
        await assert_equals_brute_force(replica.live, served.store)


async def test_a_flushed_store_leaves_nothing_in_force(served: ServedStore, admin: redis.Redis) -> None:
    await put(served.store, Action.ADD, new("a"))
    async with following(served.store) as replica:
        admin.flushall()
        await within(3, lambda: replica.target("a") is None)
        assert replica.live.position(NS).log_id == LOG_START


@pytest.mark.parametrize("entries_left", [0, 1])
async def test_a_log_whose_first_entries_were_cut_off_is_bridged_by_a_reload(
    served: ServedStore, admin: redis.Redis, entries_left: int
) -> None:
    await put(served.store, Action.ADD, new("a"))
    replica = FollowingReplica(served.store)
    await replica.live.load()
    for number in range(5):
        await put(served.store, Action.ADD, new(f"e{number}"))
    admin.xtrim(f"serac:{{{NS}}}:log", maxlen=entries_left)
    replica.follower.start()
    await within(5, lambda: replica.live.count(NS) == 6)
    await replica.follower.close()


async def test_a_log_with_foreign_entries_is_reported_once_and_keeps_no_one_busy(
    served: ServedStore, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await put(served.store, Action.ADD, new("a"))
    async with following(served.store) as replica:
        admin.xadd(f"serac:{{{NS}}}:log", {"action": "add", "edit_id": "x", "version": 1})
        await within(2, lambda: "goes on after its head" in caplog.text)
        reads = caplog.text.count("is read anew")
        await asyncio.sleep(1.2)
        assert caplog.text.count("is read anew") == reads
        assert replica.target("a") == "Ann"
        assert replica.follower.problem is None


async def test_a_follower_that_is_closed_leaves_no_connection(
    served: ServedStore, admin: redis.Redis
) -> None:
    async with following(served.store):
        during = admin.info("clients")["connected_clients"]
    await asyncio.sleep(0.1)
    assert admin.info("clients")["connected_clients"] < during


async def test_retired_edits_that_come_back_are_in_force_again(edit_store: EditStore) -> None:
    edit = new("a")
    await put(edit_store, Action.ADD, edit)
    await put(edit_store, Action.RETIRE, gone := retired(edit))
    async with following(edit_store) as replica:
        assert replica.target("a") is None
        await put(edit_store, Action.RESTORE, next_of(gone, state=EditState.LIVE))
        await within(1, lambda: replica.target("a") == "Ann")
