"""A gateway that cannot read the log reports it, and recovers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence

import pytest

from serac_gateway.errors import StoreUnavailableError
from serac_gateway.stores.checked_records import OnDamaged
from serac_gateway.stores.log_chain import LogEvidence, LogHead
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.ports import LogReader
from serac_gateway.stores.records import Action, Commit, StoredEdit
from tests.contracts.edit_store_calls import NS, new, next_of
from tests.contracts.following_replicas import assert_equals_brute_force, following, made, put, within


class SeveredStore(InMemoryEditStore):
    """A store whose readers can be cut off while its writers go on."""

    failure: Exception | None = None

    def __init__(self) -> None:
        super().__init__()
        self.ids_read: list[str] = []

    def log_reader(self) -> LogReader:
        return _SeveredReader(self, super().log_reader())

    async def stored_many(
        self, namespace: str, edit_ids: Sequence[str], *, on_damaged: OnDamaged | None = None
    ) -> list[StoredEdit]:
        self.check()
        self.ids_read += edit_ids
        return await super().stored_many(namespace, edit_ids, on_damaged=on_damaged)

    def check(self) -> None:
        if self.failure is not None:
            raise self.failure


class _SeveredReader(LogReader):
    def __init__(self, store: SeveredStore, reader: LogReader) -> None:
        self._store = store
        self._reader = reader

    async def namespaces(self) -> list[str]:
        self._store.check()
        return await self._reader.namespaces()

    async def heads(self, namespaces: Collection[str]) -> dict[str, LogHead]:
        self._store.check()
        return await self._reader.heads(namespaces)

    async def after(
        self, positions: Mapping[str, str], *, wait_s: float, limit: int
    ) -> dict[str, list[LogEvidence]]:
        self._store.check()
        return await self._reader.after(positions, wait_s=wait_s, limit=limit)

    async def close(self) -> None:
        await self._reader.close()


CUT = StoreUnavailableError("the network is down")


async def test_a_gateway_that_was_cut_off_is_not_ready_until_it_has_caught_up() -> None:
    store = SeveredStore()
    edit = new("a")
    await put(store, Action.ADD, edit)
    async with following(store, max_staleness_s=0.3) as replica:
        assert replica.follower.problem is None
        store.failure = CUT
        for number in range(2_000):
            edit = next_of(edit, target_new=f"answer {number}")
            await put(store, Action.UPDATE, edit)
        await within(2, lambda: "the network is down" in (replica.follower.problem or ""))
        assert replica.target("a") == "Ann", "what is known goes on being served"
        store.failure = None
        await within(3, lambda: replica.follower.problem is None)
        assert replica.target("a") == "answer 1999"
        await assert_equals_brute_force(replica.live, store)


async def test_a_short_cut_leaves_it_ready(caplog: pytest.LogCaptureFixture) -> None:
    store = SeveredStore()
    async with following(store, max_staleness_s=5) as replica:
        store.failure = CUT
        await within(2, lambda: "do not arrive" in caplog.text)
        assert replica.follower.problem is None
        await asyncio.sleep(0.5)
        assert caplog.text.count("do not arrive") == 1, "logged once, not at every try"
        with caplog.at_level(logging.INFO):
            store.failure = None
            await within(2, lambda: "following the log again" in caplog.text)


async def test_a_gateway_that_only_reads_slowly_says_so() -> None:
    store = SeveredStore()
    async with following(store, max_staleness_s=0.2) as replica:
        release = asyncio.Event()

        async def stall(
            namespace: str, edit_ids: Sequence[str], *, on_damaged: OnDamaged | None = None
        ) -> list[StoredEdit]:
            await release.wait()
            return await InMemoryEditStore.stored_many(store, namespace, edit_ids)

        store.stored_many = stall  # type: ignore[method-assign]
        await put(store, Action.ADD, new("a"))
        await within(2, lambda: "still reading" in (replica.follower.problem or ""))
        release.set()
        await within(1, lambda: replica.follower.problem is None)


async def test_even_an_unforeseen_error_ends_no_follower(caplog: pytest.LogCaptureFixture) -> None:
    store = SeveredStore()
    async with following(store, max_staleness_s=0.2) as replica:
        store.failure = KeyError("surprise")
        await put(store, Action.ADD, new("a"))
        await within(2, lambda: "surprise" in (replica.follower.problem or ""))
        assert "Traceback" in caplog.text
        store.failure = None
        await within(2, lambda: replica.target("a") == "Ann")


async def test_what_this_process_applied_itself_is_not_read_again() -> None:
    store = SeveredStore()
    async with following(store) as replica:
        # The commit and its effect here in one go, as if the reply had come before the log's entry.
        (change,) = made(Action.ADD, new("a")).changes
        assert change.vectors is not None
        await replica.live.apply(NS, [StoredEdit(edit=change.edit, vectors=change.vectors)])
        await store.commit(NS, Commit(changes=(change,)))
        await within(1, lambda: replica.live.position(NS).length == 1)
        assert store.ids_read == []


async def test_while_a_namespace_is_built_anew_the_old_one_serves_and_changes_reach_both() -> None:
    store = SeveredStore()
    for number in range(3):
        await put(store, Action.ADD, new(f"e{number}"))
    async with following(store) as replica:
        walking, go_on = asyncio.Event(), asyncio.Event()
        snapshot = store.snapshot

        async def slow_snapshot(namespace: str, **more: OnDamaged) -> object:
            walking.set()
            await go_on.wait()
            async for stored in snapshot(namespace, **more):
                if stored.edit.id != "new":  # as if the walk had been past its place
                    yield stored

        store.snapshot = slow_snapshot  # type: ignore[method-assign, assignment]
        reloading = asyncio.create_task(replica.live.reload(NS))
        await walking.wait()
        assert replica.target("e1") == "Ann"
        await put(store, Action.ADD, new("new"))
        await replica.live.apply(NS, [await store.stored(NS, "new")])
        assert replica.target("new") == "Ann"
        go_on.set()
        await reloading
        assert replica.target("new") == "Ann", "it was not lost with the swap"
        assert replica.live.count(NS) == 4


async def test_a_reload_that_fails_changes_nothing() -> None:
    store = SeveredStore()
    await put(store, Action.ADD, new("a"))
    async with following(store) as replica:

        async def broken(namespace: str, **more: OnDamaged) -> object:
            raise CUT
            yield

        snapshot, store.snapshot = store.snapshot, broken  # type: ignore[method-assign, assignment]
        with pytest.raises(StoreUnavailableError):
            await replica.live.reload(NS)
        store.snapshot = snapshot  # type: ignore[method-assign]
        await put(store, Action.ADD, new("b"))
        await within(1, lambda: replica.target("b") == "Ann")
        assert replica.target("a") == "Ann"
