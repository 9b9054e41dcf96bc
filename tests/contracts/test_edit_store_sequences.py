"""How every edit store lists and logs, and what it does when many write at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serac_gateway.domain.edits import Edit, EditState, retired, tombstone
from serac_gateway.errors import (
    EditConflictError,
    EditNotFoundError,
    GatewayError,
    IdempotencyKeyReusedError,
    PreconditionFailedError,
)
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.log_verification import verify_log
from serac_gateway.stores.records import LOG_START, Action, Idempotency, log_id_order
from tests.contracts.edit_store_calls import (
    NS,
    add,
    commit_of,
    commit_of_all,
    new,
    next_of,
    snapshot,
    update,
    walk,
)

# -- pages


async def test_pages_go_through_all_ids_in_order(edit_store: EditStore) -> None:
    ids = ["B", "a", "a-1", "a_1", "b", "ed_0", "ed_00", "Z9", "10", "9"]
    await asyncio.gather(*(add(edit_store, new(edit_id)) for edit_id in ids))
    for limit in (1, 3, 5, 10, 100):
        assert [edit.id for edit in await walk(edit_store, limit=limit)] == sorted(ids)


async def test_pages_can_be_of_one_state(edit_store: EditStore) -> None:
    edits = [new(f"e{number}") for number in range(9)]
    for edit in edits:
        await add(edit_store, edit)
    for edit in edits[::3]:
        await edit_store.commit(NS, commit_of(Action.RETIRE, retired(edit)))
    live = await walk(edit_store, limit=2, state=EditState.LIVE)
    gone = await walk(edit_store, limit=2, state=EditState.RETIRED)
    assert live == [edit for edit in edits if edit not in edits[::3]]
    assert [edit.id for edit in gone] == ["e0", "e3", "e6"]
    assert {edit.state for edit in gone} == {EditState.RETIRED}


async def test_an_edit_is_listed_once_whatever_others_write_meanwhile(edit_store: EditStore) -> None:
    old = [new(f"m{number:03d}") for number in range(60)]
    await asyncio.gather(*(add(edit_store, edit) for edit in old))
    dice = random.Random(7)
    done = asyncio.Event()

    async def disturb() -> None:
        newest = {edit.id: edit for edit in old}
        while not done.is_set():
            edit_id = dice.choice(sorted(newest))
            newest[edit_id] = next_of(newest[edit_id])
            await update(edit_store, newest[edit_id])
            await add(edit_store, new(f"{dice.choice('amz')}x{dice.getrandbits(40)}"))
            await asyncio.sleep(0)

    writer = asyncio.create_task(disturb())
    try:
        for _ in range(5):
            cursor, seen = None, Counter[str]()
            while True:
                page = await edit_store.page(NS, cursor=cursor, limit=7)
                seen.update(edit.id for edit in page.edits)
                await asyncio.sleep(0)
                if (cursor := page.next_cursor) is None:
                    break
            assert {edit.id for edit in old} <= set(seen)
            assert set(seen.values()) == {1}
    finally:
        done.set()
        await writer


# -- the log


async def test_the_log_has_every_commit_in_order(edit_store: EditStore) -> None:
    assert await edit_store.log_end(NS) == LOG_START
    assert await edit_store.log(NS) == []
    first = new("a", author="Ann", reason="news")
    commits = [
        commit_of(Action.ADD, first),
        commit_of(Action.ADD, new("b")),
        commit_of(Action.UPDATE, next_of(first, author="Bea", reason=None)),
        commit_of(Action.RETIRE, retired(new("b"))),
    ]
    receipts = [await edit_store.commit(NS, commit) for commit in commits]
    entries = await edit_store.log(NS)
    assert [entry.log_id for entry in entries] == [receipt.changes[0].log_id for receipt in receipts]
    assert [log_id_order(entry.log_id) for entry in entries] == sorted(
        log_id_order(entry.log_id) for entry in entries
    )
    for entry, commit in zip(entries, commits, strict=True):
        (change,) = commit.changes
        edit = change.edit
        assert (entry.action, entry.edit_id, entry.version) == (change.action, edit.id, edit.version)
        assert (entry.at, entry.author, entry.reason) == (edit.created_at, edit.author, edit.reason)
    assert await edit_store.log_end(NS) == receipts[-1].changes[0].log_id


async def test_the_log_goes_on_after_any_of_its_ids(edit_store: EditStore) -> None:
    for number in range(7):
        await add(edit_store, new(f"e{number}"))
    all_entries = await edit_store.log(NS)
    for position, entry in enumerate(all_entries):
        assert await edit_store.log(NS, after=entry.log_id) == all_entries[position + 1 :]
    assert await edit_store.log(NS, limit=3) == all_entries[:3]
    assert await edit_store.log(NS, after=all_entries[2].log_id, limit=2) == all_entries[3:5]


# -- many at once


async def test_of_concurrent_changes_exactly_one_wins_each_version(edit_store: EditStore) -> None:
    await add(edit_store, new("a"))
    wins = Counter[int]()

    async def write(writer: int) -> None:
        for turn in range(8):
            mine = next_of(await edit_store.get(NS, "a"), target_new=f"{writer}.{turn}")
            try:
                (committed,) = (await update(edit_store, mine)).changes
            except PreconditionFailedError:
                continue
            wins[committed.version] += 1
            written = await edit_store.get(NS, "a", version=committed.version)
            assert written.target_new == f"{writer}.{turn}"

    await asyncio.gather(*(write(writer) for writer in range(8)))
    versions = await edit_store.versions(NS, "a")
    assert set(wins.values()) == {1}
    assert [edit.version for edit in versions] == list(range(1, len(versions) + 1))
    assert sorted(wins) == list(range(2, len(versions) + 1))
    assert len(await edit_store.log(NS)) == len(versions)


async def test_more_calls_than_connections_wait_their_turn(edit_store: EditStore) -> None:
    await asyncio.gather(*(add(edit_store, new(f"e{number}")) for number in range(200)))
    edits = await asyncio.gather(*(edit_store.get(NS, f"e{number}") for number in range(200)))
    assert [edit.id for edit in edits] == [f"e{number}" for number in range(200)]


async def test_a_cancelled_commit_is_made_or_not_and_never_in_part(edit_store: EditStore) -> None:
    dice = random.Random(3)
    for number in range(60):
        edit = new(f"e{number}")
        task = asyncio.create_task(add(edit_store, edit))
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(dice.choice((0, 0, 0.0005)))
        task.cancel()
        await asyncio.wait([task])
        # Whatever became of it, the store answers this call and no other, and the id is taken at last.
        with contextlib.suppress(EditConflictError):
            await add(edit_store, edit)
        assert (await edit_store.get(NS, edit.id)).id == edit.id
        assert await edit_store.versions(NS, edit.id) == [edit]
        assert (await edit_store.stored(NS, edit.id)).edit == edit
    assert Counter(entry.edit_id for entry in await edit_store.log(NS)) == {f"e{n}": 1 for n in range(60)}
    assert len(await snapshot(edit_store)) == 60


# -- against a model


class Operation(msgspec.Struct, frozen=True):
    changes: list[tuple[Action, str, int]]
    """Action, edit id, and how far the expected version is behind the current one."""
    key: str | None
    fingerprint: str


OPERATIONS = st.lists(
    st.builds(
        Operation,
        changes=st.lists(
            st.tuples(
                st.sampled_from(Action), st.sampled_from(["a", "b", "c"]), st.sampled_from([0] * 6 + [1, -1])
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda change: change[1],
        ),
        key=st.sampled_from([None, None, "k", "l"]),
        fingerprint=st.sampled_from(["1", "2"]),
    ),
    max_size=25,
)

Outcome = tuple[list[tuple[str, int]], bool] | type[GatewayError]


class Model:
    """A namespace in the fewest words."""

    def __init__(self) -> None:
        self.versions: dict[str, list[Edit]] = {}
        self.log: list[tuple[Action, str, int]] = []
        self.results: dict[str, tuple[str, list[tuple[str, int]]]] = {}

    def apply(self, operation: Operation, edits: list[Edit]) -> Outcome:
        if operation.key in self.results:
            fingerprint, result = self.results[operation.key]
            return (result, True) if fingerprint == operation.fingerprint else IdempotencyKeyReusedError
        for (action, edit_id, _), edit in zip(operation.changes, edits, strict=True):
            held = self.versions.get(edit_id, [])
            if action is Action.ADD and held:
                return EditConflictError
            if action is not Action.ADD and not held:
                return EditNotFoundError
            if edit.version != len(held) + 1:
                return PreconditionFailedError
        for (action, edit_id, _), edit in zip(operation.changes, edits, strict=True):
            held = self.versions.get(edit_id, [])
            self.versions[edit_id] = [*(map(tombstone, held) if action is Action.PURGE else held), edit]
            self.log.append((action, edit_id, edit.version))
        result = [(edit.id, edit.version) for edit in edits]
        if operation.key is not None:
            self.results[operation.key] = (operation.fingerprint, result)
        return result, False


def edit_for(change: tuple[Action, str, int], model: Model, *, namespace: str, number: int) -> Edit:
    action, edit_id, behind = change
    version = max(2, len(model.versions.get(edit_id, [])) + 1 - behind)
    at = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    edit = new(edit_id, namespace=namespace, target_new=f"answer {number}", author=f"author {number}")
    if action is Action.PURGE:
        edit = tombstone(edit)
    return msgspec.structs.replace(
        edit,
        version=1 if action is Action.ADD else version,
        state=EditState.RETIRED if action is Action.RETIRE else edit.state,
        created_at=at,
    )


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # each example has a namespace of its own
@given(operations=OPERATIONS)
async def test_any_sequence_of_commits_gives_what_a_simple_model_gives(
    edit_store: EditStore, operations: list[Operation]
) -> None:
    namespace = f"n{time.monotonic_ns()}"
    model = Model()
    for number, operation in enumerate(operations):
        edits = [edit_for(change, model, namespace=namespace, number=number) for change in operation.changes]
        expected = model.apply(operation, edits)
        commit = msgspec.structs.replace(
            commit_of_all(
                *((action, edit) for (action, *_), edit in zip(operation.changes, edits, strict=True))
            ),
            idempotency=operation.key
            and Idempotency(key=f"{operation.key} {namespace}", fingerprint=operation.fingerprint),
        )
        try:
            receipt = await edit_store.commit(namespace, commit)
            outcome: Outcome = (
                [(change.edit_id, change.version) for change in receipt.changes],
                receipt.replayed,
            )
        except GatewayError as exc:
            outcome = type(exc)
        assert outcome == expected

    current = {edit_id: versions[-1] for edit_id, versions in model.versions.items()}
    for edit_id, versions in model.versions.items():
        assert await edit_store.versions(namespace, edit_id) == versions
    assert {edit.id: edit for edit in await walk(edit_store, limit=1, namespace=namespace)} == current
    assert {edit_id: stored.edit for edit_id, stored in (await snapshot(edit_store, namespace)).items()} == {
        edit_id: edit for edit_id, edit in current.items() if edit.state is EditState.LIVE
    }
    entries = await edit_store.log(namespace)
    assert [(entry.action, entry.edit_id, entry.version) for entry in entries] == model.log
    assert (namespace in await edit_store.namespaces()) == bool(model.log)
    assert (await verify_log(edit_store, namespace)).length == len(model.log)
