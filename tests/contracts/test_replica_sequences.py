"""Eight writers on four gateways that share a store, in random operations, against a model.

Every edit must look as if its versions had been made one after the other, each by one acknowledged call (or
one whose outcome nobody knows), in an order consistent with what each caller can observe; and all
gateways must end up with what is stored.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from serac_gateway.config.model import RoutingConfig
from serac_gateway.control_plane.conflicts import ConflictFinder
from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import Edit, EditDraft, EditPatch, EditState
from serac_gateway.errors import (
    EditConflictError,
    EditNotFoundError,
    PreconditionFailedError,
    StoreUnavailableError,
)
from serac_gateway.stores.log_verification import verify_log
from serac_gateway.stores.redis.store import RedisStore
from serac_gateway.testing import ThresholdClassifier
from tests.contracts.following_replicas import ENCODER, FollowingReplica, assert_equals_brute_force, within
from tests.contracts.served_stores import RedisServer
from tests.e2e.fault_proxy import FaultProxy

EDIT_IDS = ["a", "b", "c"]
ACTIONS = ["add", "change", "retire", "restore", "purge"]
REPLICAS, WRITERS = 4, 8


@dataclass
class Call:
    """A writer's request and the reply it got."""

    action: str
    edit_id: str
    target: str
    expected_version: int
    """Of the version to be made."""
    started_s: float
    ended_s: float = 0.0
    made: Edit | None = None
    """None: refused, or nobody knows."""
    refused: bool = False
    stale: bool = False
    """Refused, because the version it built on was not current."""


class Gateway:
    """A replica that can be cut off from the store, and writes to it."""

    def __init__(self, proxy: FaultProxy, store: RedisStore, pool: ThreadPoolExecutor) -> None:
        self.proxy, self.store = proxy, store
        self.replica = FollowingReplica(store)
        finder = ConflictFinder(
            active_edits=self.replica.live,
            encoder=ENCODER,
            classifier=ThresholdClassifier(),
            config=RoutingConfig(),
        )
        self.writer = EditWriter(
            store=store, encoder=ENCODER, active_edits=self.replica.live, pool=pool, conflicts=finder
        )
        self.is_cut = False

    async def call(self, namespace: str, action: str, edit_id: str, target: str, behind: int) -> Call | None:
        """Send it, and return its outcome; None if not even the current version could be read."""
        try:
            current = (await self.store.get(namespace, edit_id)).version
        except EditNotFoundError:
            current = 0
        except StoreUnavailableError:
            return None
        expected = max(1, current - behind)
        call = Call(action, edit_id, target, 1 if action == "add" else expected + 1, time.monotonic())
        try:
            call.made = await self._made(namespace, call, expected)
        except (EditConflictError, EditNotFoundError):
            call.refused = True
        except PreconditionFailedError:
            call.refused = call.stale = True
        except StoreUnavailableError:
            pass
        call.ended_s = time.monotonic()
        return call

    async def _made(self, namespace: str, call: Call, expected: int) -> Edit:
        edit_id = call.edit_id
        if call.action == "add":
            draft = EditDraft(id=edit_id, prompt=f"Who runs {edit_id}?", target_new=call.target)
            return (await self.writer.write(namespace, NextVersion.added(namespace, draft))).edit
        current = await self.store.get(namespace, edit_id, version=expected)
        if call.action == "change":
            version = NextVersion.changed(current, EditPatch(target_new=call.target))
        elif call.action == "retire":
            version = NextVersion.retired(current)
        elif call.action == "restore":
            version = NextVersion.restored(current)
        else:
            version = NextVersion.purged(current)
        return (await self.writer.write(version.edit.namespace, version)).edit


class ReplicaMachine(RuleBasedStateMachine):
    """Bursts of concurrent calls, cuts of single gateways, and a look at all of it in between."""

    port = 0
    """Of the store's server."""

    def __init__(self) -> None:
        super().__init__()
        self.namespace = f"n{time.monotonic_ns()}"
        self.calls: list[Call] = []
        self.numbers = itertools.count()
        self.newest_seen: dict[tuple[int, str], int] = {}
        self.runner = asyncio.Runner()
        self.run(self.open())

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.runner.run(coroutine)

    async def open(self) -> None:
        with redis.Redis(port=self.port) as admin:
            admin.flushall()  # every gateway would load the examples before
        self.stack = AsyncExitStack()
        pool = self.stack.enter_context(ThreadPoolExecutor(2))
        self.gateways = []
        for _ in range(REPLICAS):
            proxy = await self.stack.enter_async_context(FaultProxy(self.port))
            store = await RedisStore.open(proxy.url)
            self.stack.push_async_callback(store.close)
            gateway = Gateway(proxy, store, pool)
            await gateway.replica.start()
            self.stack.push_async_callback(gateway.replica.follower.close)
            self.gateways.append(gateway)

    @rule(
        burst=st.lists(
            st.tuples(
                st.integers(0, WRITERS - 1),
                st.sampled_from(ACTIONS + ["change"] * 4),
                st.sampled_from(EDIT_IDS),
                st.sampled_from([0] * 5 + [1]),
            ),
            min_size=1,
            max_size=30,
        )
    )
    def write(self, burst: list[tuple[int, str, str, int]]) -> None:
        self.run(self._write(burst))

    @precondition(lambda self: any(not gateway.is_cut for gateway in self.gateways))
    @rule(number=st.integers(0, REPLICAS - 1))
    def cut(self, number: int) -> None:
        async def cut() -> None:
            self.gateways[number].proxy.cut()
            self.gateways[number].is_cut = True

        self.run(cut())

    @precondition(lambda self: any(gateway.is_cut for gateway in self.gateways))
    @rule()
    def mend(self) -> None:
        self.run(self._mend())

    @rule(number=st.integers(0, REPLICAS - 1))
    def read_anew(self, number: int) -> None:
        if not self.gateways[number].is_cut:
            self.run(self._read_anew(number))

    @invariant()
    def no_gateway_goes_back(self) -> None:
        for number, gateway in enumerate(self.gateways):
            for edit_id in EDIT_IDS:
                edit = gateway.replica.live.current(self.namespace, edit_id)
                if edit is not None:
                    assert edit.version >= self.newest_seen.get((number, edit_id), 0)
                    self.newest_seen[number, edit_id] = edit.version

    def teardown(self) -> None:
        try:
            self.run(self._check_all())
        finally:
            self.run(self.stack.aclose())
            self.runner.close()

    async def _write(self, burst: list[tuple[int, str, str, int]]) -> None:
        async def writer(number: int) -> None:
            gateway = self.gateways[number % REPLICAS]
            for who, action, edit_id, behind in burst:
                if who == number:
                    target = f"answer {next(self.numbers)}"
                    call = await gateway.call(self.namespace, action, edit_id, target, behind)
                    if call is not None:
                        self.calls.append(call)

        await asyncio.gather(*(writer(number) for number in range(WRITERS)))

    async def _mend(self) -> None:
        for gateway in self.gateways:
            gateway.proxy.mend()
            gateway.is_cut = False

    async def _read_anew(self, number: int) -> None:
        await self.gateways[number].replica.live.reload(self.namespace)

    async def _check_all(self) -> None:
        await self._mend()
        store = self.gateways[0].store
        head = await store.log_head(self.namespace)
        for gateway in self.gateways:
            live = gateway.replica.live
            await within(5, lambda: live.position(self.namespace) == head, (live.positions(), head))  # noqa: B023
            await assert_equals_brute_force(live, store, self.namespace)
        assert await verify_log(store, self.namespace) == head
        for edit_id in EDIT_IDS:
            try:
                versions = await store.versions(self.namespace, edit_id)
            except EditNotFoundError:
                versions = []
            self._check_edit(versions, [call for call in self.calls if call.edit_id == edit_id])

    def _check_edit(self, versions: list[Edit], calls: list[Call]) -> None:
        """A linearization: version n was made by one call, and version n + 1 by none that ended before."""
        assert [edit.version for edit in versions] == list(range(1, len(versions) + 1))
        purged = bool(versions) and versions[-1].state is EditState.PURGED
        made = {call.made.version: call for call in calls if call.made is not None}
        assert len(made) == sum(call.made is not None for call in calls), "two calls made one version"
        assert not made or max(made) <= len(versions), "an acknowledged version is lost"
        unknown = [call for call in calls if call.made is None and not call.refused]
        for edit in versions:
            call = made.get(edit.version)
            if call is None:
                assert any(call.expected_version == edit.version for call in unknown), f"who made {edit}?"
            elif not purged:
                assert call.made == edit
        in_order = [made[version] for version in sorted(made)]
        for number, earlier in enumerate(in_order):
            assert all(later.ended_s > earlier.started_s for later in in_order[number + 1 :])
        for call in calls:
            if call.stale:
                others = [other for other in calls if not other.refused and other.started_s < call.ended_s]
                assert any(other.expected_version >= call.expected_version for other in others), (
                    f"{call} was refused as stale, and nobody else made that version"
                )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    redis_server = RedisServer(tmp_path_factory.mktemp("replicas"))
    redis_server.start()
    yield redis_server
    redis_server.kill()


@pytest.mark.parametrize("examples", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_gateways_agree_and_each_edit_has_one_history(
    server: RedisServer, tmp_path: Path, examples: int
) -> None:
    class OnServer(ReplicaMachine):
        port = server.port

    run_state_machine_as_test(
        OnServer,
        settings=settings(
            max_examples=examples,
            stateful_step_count=10,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            # No shrinking: what happens at the same time happens otherwise each time.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
        ),
    )
