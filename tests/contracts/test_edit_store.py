"""What every edit store does."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serac_gateway.edits import Edit, EditState, retired
from serac_gateway.errors import (
    EditConflictError,
    EditNotFoundError,
    GatewayError,
    IdempotencyKeyReusedError,
    InvalidRequestError,
    PreconditionFailedError,
)
from serac_gateway.stores.base import (
    LOG_START,
    Action,
    Commit,
    EditStore,
    FormVectors,
    StoredEdit,
    log_id_order,
)
from tests.contracts.edit_store_calls import NS, add, commit_of, new, next_of, snapshot, update, walk

# -- what is stored


async def test_an_added_edit_comes_back_whole(edit_store: EditStore) -> None:
    until = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    edit = new(
        "a",
        paraphrases=("Qui dirige «a» ? 🏔", 'tab\t"quote" \\ \x00 line\u2028'),
        valid_until=until,
        source="x",
    )
    receipt = await add(edit_store, edit)
    assert (receipt.edit_id, receipt.version, receipt.replayed) == ("a", 1, False)
    assert await edit_store.get(NS, "a") == edit
    assert await edit_store.get(NS, "a", version=1) == edit
    assert (await edit_store.stored(NS, "a")).edit == edit


async def test_every_version_stays_as_it_was_written(edit_store: EditStore) -> None:
    first = new("a")
    second = next_of(first, target_new="Bea", reason="Ann left")
    third = retired(second)
    await add(edit_store, first)
    await update(edit_store, second)
    await edit_store.commit(NS, commit_of(Action.RETIRE, third))
    assert await edit_store.versions(NS, "a") == [first, second, third]
    assert await edit_store.get(NS, "a", version=1) == first
    assert await edit_store.get(NS, "a", version=2) == second
    assert await edit_store.get(NS, "a") == third


async def test_vectors_come_back_bit_for_bit(edit_store: EditStore) -> None:
    odd = np.array([[0.1, -0.0, 1e-45, np.inf, 3.4e38], [np.nan, 1, 2, 3, 4]], dtype=np.float32)
    stored = StoredEdit(edit=new("a"), vectors=FormVectors(fingerprint="MiniLM ünit", vectors_FD=odd))
    await edit_store.commit(NS, Commit(action=Action.ADD, stored=stored))
    for found in (await edit_store.stored(NS, "a"), (await snapshot(edit_store))["a"]):
        assert found.vectors.fingerprint == "MiniLM ünit"
        assert found.vectors.vectors_FD.dtype == np.float32
        assert found.vectors.vectors_FD.shape == odd.shape
        assert found.vectors.vectors_FD.tobytes() == odd.tobytes()


async def test_vectors_are_those_of_the_current_version(edit_store: EditStore) -> None:
    first = new("a")
    await add(edit_store, first, seed=1)
    await update(edit_store, next_of(first), seed=2)
    assert (await edit_store.stored(NS, "a")).vectors.fingerprint == "encoder 2"


async def test_the_snapshot_is_every_live_edit_and_no_retired_one(edit_store: EditStore) -> None:
    edits = [new(f"e{number:03d}") for number in range(600)]  # more than one batch
    await asyncio.gather(*(add(edit_store, edit) for edit in edits))
    gone = edits[5]
    await edit_store.commit(NS, commit_of(Action.RETIRE, retired(gone)))
    found = await snapshot(edit_store)
    assert {edit_id: stored.edit for edit_id, stored in found.items()} == {
        edit.id: edit for edit in edits if edit is not gone
    }


async def test_namespaces_are_apart(edit_store: EditStore) -> None:
    assert await edit_store.namespaces() == []
    ours, theirs = new("a", namespace="ours"), new("a", namespace="theirs", target_new="Bea")
    await add(edit_store, ours, key="k", fingerprint="1")
    receipt = await add(edit_store, theirs, key="k", fingerprint="2")
    assert not receipt.replayed
    assert await edit_store.namespaces() == ["ours", "theirs"]
    assert await edit_store.get("ours", "a") == ours
    assert await edit_store.get("theirs", "a") == theirs
    assert list(await snapshot(edit_store, "ours")) == ["a"]
    assert (await edit_store.page("nobodys")).edits == []
    assert await snapshot(edit_store, "nobodys") == {}
    assert await edit_store.log("nobodys") == []
    with pytest.raises(EditNotFoundError):
        await edit_store.get("nobodys", "a")
    assert await edit_store.namespaces() == ["ours", "theirs"], "reading makes no namespace"


# -- what is refused


async def test_an_id_is_given_out_once(edit_store: EditStore) -> None:
    edit = new("a")
    await add(edit_store, edit)
    with pytest.raises(EditConflictError, match="'a' exists already"):
        await add(edit_store, new("a", target_new="Bea"))
    await edit_store.commit(NS, commit_of(Action.RETIRE, retired(edit)))
    with pytest.raises(EditConflictError):
        await add(edit_store, new("a"))
    assert len(await edit_store.versions(NS, "a")) == 2


@pytest.mark.parametrize("version", [2, 3, 5, 9])
async def test_a_change_of_another_than_the_current_version_is_refused(
    edit_store: EditStore, version: int
) -> None:
    first = new("a")
    second = next_of(first)
    third = next_of(second)
    for action, edit in ((Action.ADD, first), (Action.UPDATE, second), (Action.UPDATE, third)):
        await edit_store.commit(NS, commit_of(action, edit))
    with pytest.raises(PreconditionFailedError, match=f"at version 3, not {version - 1}") as refusal:
        await update(edit_store, msgspec.structs.replace(first, version=version))
    assert refusal.value.details == {"value": version - 1, "current": 3}
    assert await edit_store.get(NS, "a") == third


async def test_an_unknown_edit_is_not_found(edit_store: EditStore) -> None:
    await add(edit_store, new("a"))
    unknown = next_of(new("b"))
    calls: list[Awaitable[object]] = [
        edit_store.get(NS, "b"),
        edit_store.get(NS, "b", version=1),
        edit_store.stored(NS, "b"),
        edit_store.versions(NS, "b"),
        update(edit_store, unknown),
        edit_store.commit(NS, commit_of(Action.RETIRE, retired(new("b")))),
        *(edit_store.get(NS, "a", version=version) for version in (-1, 0, 2, 2**70)),
    ]
    for call in calls:
        with pytest.raises(EditNotFoundError):
            await call
    assert len(await edit_store.log(NS)) == 1


@pytest.mark.parametrize("bad", ["", "a}:x", "A", "a b", "a\n", "../a", "ä", "a" * 64, "*", "\ud800"])
async def test_a_namespace_that_breaks_the_rules_reaches_no_server(edit_store: EditStore, bad: str) -> None:
    edit = msgspec.structs.replace(new("a"), namespace=bad)
    calls: list[Awaitable[object]] = [
        edit_store.commit(bad, commit_of(Action.ADD, edit)),
        edit_store.get(bad, "a"),
        edit_store.versions(bad, "a"),
        edit_store.page(bad),
        snapshot(edit_store, bad),
        edit_store.stored(bad, "a"),
        edit_store.log_end(bad),
        edit_store.log(bad),
    ]
    for call in calls:
        with pytest.raises(InvalidRequestError):
            await call
    assert await edit_store.namespaces() == []


@pytest.mark.parametrize("bad", ["", "a:b", "a b", "a\r\nPING", "ä", "a" * 65, "[a", "\ud800"])
async def test_an_edit_id_that_breaks_the_rules_reaches_no_server(edit_store: EditStore, bad: str) -> None:
    edit = msgspec.structs.replace(new("a"), id=bad)
    calls: list[Awaitable[object]] = [
        add(edit_store, edit),
        edit_store.get(NS, bad),
        edit_store.get(NS, bad, version=1),
        edit_store.versions(NS, bad),
        edit_store.stored(NS, bad),
        edit_store.page(NS, cursor=bad),
    ]
    for call in calls:
        with pytest.raises(InvalidRequestError):
            await call


@pytest.mark.parametrize("bad", ["", "5", "a-b", "-", "$", "1-1-1", "9999999999999999999999-0", "١-٠"])
async def test_a_log_id_that_is_none_is_refused(edit_store: EditStore, bad: str) -> None:
    with pytest.raises(InvalidRequestError, match="log id"):
        await edit_store.log(NS, after=bad)


@pytest.mark.parametrize(
    ("action", "edit"),
    [
        (Action.ADD, next_of(new("a"))),
        (Action.UPDATE, new("a")),
        (Action.RETIRE, msgspec.structs.replace(new("a"), version=0)),
        (Action.ADD, new("a", namespace="another")),
    ],
)
async def test_a_commit_that_is_not_well_formed_is_the_callers_mistake(
    edit_store: EditStore, action: Action, edit: Edit
) -> None:
    with pytest.raises(ValueError, match=r"version|namespace"):
        await edit_store.commit(NS, commit_of(action, edit))
    assert await edit_store.log(NS) == []


# -- idempotency


async def test_the_same_request_again_changes_nothing_and_gets_the_first_receipt(
    edit_store: EditStore,
) -> None:
    first = await add(edit_store, new("a"), key="k", fingerprint="body")
    again = await add(edit_store, new("other-id"), key="k", fingerprint="body")
    assert again == msgspec.structs.replace(first, replayed=True)
    assert [edit.id for edit in await walk(edit_store, limit=10)] == ["a"]
    assert len(await edit_store.log(NS)) == 1


async def test_a_key_with_another_request_is_refused(edit_store: EditStore) -> None:
    await add(edit_store, new("a"), key="k", fingerprint="body")
    with pytest.raises(IdempotencyKeyReusedError, match="idempotency key 'k'"):
        await add(edit_store, new("b"), key="k", fingerprint="another body")
    with pytest.raises(EditNotFoundError):
        await edit_store.get(NS, "b")


async def test_a_refused_request_does_not_use_up_its_key(edit_store: EditStore) -> None:
    await add(edit_store, new("a"))
    with pytest.raises(EditConflictError):
        await add(edit_store, new("a"), key="k", fingerprint="1")
    assert not (await add(edit_store, new("b"), key="k", fingerprint="2")).replayed


async def test_a_key_of_any_shape_is_one_key(edit_store: EditStore) -> None:
    for number, key in enumerate(["", "x" * 10_000, "a b\r\n\x00", "}{*", "ключ"]):
        assert not (await add(edit_store, new(f"e{number}"), key=key)).replayed
        assert (await add(edit_store, new(f"e{number}"), key=key)).replayed


async def test_a_key_is_free_again_after_its_time(edit_store: EditStore) -> None:
    await add(edit_store, new("a"), key="k", fingerprint="1")
    await asyncio.sleep(1.2)
    assert not (await add(edit_store, new("b"), key="k", fingerprint="2")).replayed


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
    assert [entry.log_id for entry in entries] == [receipt.log_id for receipt in receipts]
    assert [log_id_order(entry.log_id) for entry in entries] == sorted(
        log_id_order(entry.log_id) for entry in entries
    )
    for entry, commit in zip(entries, commits, strict=True):
        edit = commit.stored.edit
        assert (entry.action, entry.edit_id, entry.version) == (commit.action, edit.id, edit.version)
        assert (entry.at, entry.author, entry.reason) == (edit.created_at, edit.author, edit.reason)
    assert await edit_store.log_end(NS) == receipts[-1].log_id


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
                receipt = await update(edit_store, mine)
            except PreconditionFailedError:
                continue
            wins[receipt.version] += 1
            assert (await edit_store.get(NS, "a", version=receipt.version)).target_new == f"{writer}.{turn}"

    await asyncio.gather(*(write(writer) for writer in range(8)))
    versions = await edit_store.versions(NS, "a")
    assert set(wins.values()) == {1}
    assert [edit.version for edit in versions] == list(range(1, len(versions) + 1))
    assert sorted(wins) == list(range(2, len(versions) + 1))
    assert len(await edit_store.log(NS)) == len(versions)


async def test_more_calls_than_connections_wait_their_turn(edit_store: EditStore) -> None:
    await asyncio.gather(*(add(edit_store, new(f"e{number}")) for number in range(200)))
    found = await asyncio.gather(*(edit_store.get(NS, f"e{number}") for number in range(200)))
    assert [edit.id for edit in found] == [f"e{number}" for number in range(200)]


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
    action: Action
    edit_id: str
    expected_behind: int
    """How far the expected version is behind the current one."""
    key: str | None
    fingerprint: str


OPERATIONS = st.lists(
    st.builds(
        Operation,
        action=st.sampled_from(Action),
        edit_id=st.sampled_from(["a", "b"]),
        expected_behind=st.sampled_from([0, 0, 0, 1, -1]),
        key=st.sampled_from([None, None, "k", "l"]),
        fingerprint=st.sampled_from(["1", "2"]),
    ),
    max_size=25,
)


class Model:
    """A namespace in the fewest words."""

    def __init__(self) -> None:
        self.versions: dict[str, list[Edit]] = {}
        self.log: list[tuple[Action, str, int]] = []
        self.results: dict[str, tuple[str, tuple[str, int]]] = {}

    def apply(self, operation: Operation, edit: Edit) -> tuple[str, int, bool] | type[GatewayError]:
        held = self.versions.get(edit.id, [])
        if operation.key in self.results:
            fingerprint, result = self.results[operation.key]
            return (*result, True) if fingerprint == operation.fingerprint else IdempotencyKeyReusedError
        if operation.action is Action.ADD and held:
            return EditConflictError
        if operation.action is not Action.ADD and not held:
            return EditNotFoundError
        if edit.version != len(held) + 1:
            return PreconditionFailedError
        self.versions[edit.id] = [*held, edit]
        self.log.append((operation.action, edit.id, edit.version))
        if operation.key is not None:
            self.results[operation.key] = (operation.fingerprint, (edit.id, edit.version))
        return edit.id, edit.version, False


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # each example has a namespace of its own
@given(operations=OPERATIONS)
async def test_any_sequence_of_commits_gives_what_a_simple_model_gives(
    edit_store: EditStore, operations: list[Operation]
) -> None:
    namespace = f"n{time.monotonic_ns()}"
    keys = {"k": f"k {namespace}", "l": f"l {namespace}", None: None}
    model = Model()
    for number, operation in enumerate(operations):
        version = max(2, len(model.versions.get(operation.edit_id, [])) + 1 - operation.expected_behind)
        edit = msgspec.structs.replace(
            new(operation.edit_id, namespace=namespace, target_new=f"answer {number}"),
            version=1 if operation.action is Action.ADD else version,
            state=EditState.RETIRED if operation.action is Action.RETIRE else EditState.LIVE,
            created_at=datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
        )
        expected = model.apply(operation, edit)
        try:
            receipt = await edit_store.commit(
                namespace,
                commit_of(
                    operation.action,
                    edit,
                    key=keys[operation.key],
                    fingerprint=operation.fingerprint,
                    seed=number,
                ),
            )
            outcome: object = (receipt.edit_id, receipt.version, receipt.replayed)
        except GatewayError as exc:
            outcome = type(exc)
        assert outcome == expected

    current = {edit_id: versions[-1] for edit_id, versions in model.versions.items()}
    for edit_id, versions in model.versions.items():
        assert await edit_store.versions(namespace, edit_id) == versions
    assert {edit.id: edit for edit in await walk(edit_store, limit=1, namespace=namespace)} == current
    assert {edit_id: found.edit for edit_id, found in (await snapshot(edit_store, namespace)).items()} == {
        edit_id: edit for edit_id, edit in current.items() if edit.state is EditState.LIVE
    }
    entries = await edit_store.log(namespace)
    assert [(entry.action, entry.edit_id, entry.version) for entry in entries] == model.log
    assert (namespace in await edit_store.namespaces()) == bool(model.log)
