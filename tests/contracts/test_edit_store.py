"""What every edit store does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, date, datetime

import msgspec
import numpy as np
import pytest

from serac_gateway.domain.edits import Attribution, Edit, EditState, purged, retired, tombstone
from serac_gateway.errors import (
    EditConflictError,
    EditNotFoundError,
    IdempotencyKeyReusedError,
    InvalidRequestError,
    PreconditionFailedError,
)
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import (
    MAX_CHANGES,
    NO_VECTORS,
    Action,
    Change,
    Commit,
    FormVectors,
    Idempotency,
)
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

# -- what is stored


async def test_an_added_edit_comes_back_whole(edit_store: EditStore) -> None:
    until = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    edit = new(
        "a",
        paraphrases=("Qui dirige «a» ? 🏔", 'tab\t"quote" \\ \x00 line\u2028'),
        subject="a",
        aliases=("alpha", "الف", "🅰️", 'the "A"'),
        valid_until=until,
        source="x",
        ticket="LEG-7",
        institution="Gemeinde «A»",
        source_url="https://a.example/%C3%A4.pdf?v=1#p2",
        source_sha256="0123456789abcdef" * 4,
        legal_basis="Art. 17 (1)",
        review_by=date(2031, 2, 28),
    )
    receipt = await add(edit_store, edit)
    (committed,) = receipt.changes
    assert (committed.edit_id, committed.version, receipt.replayed) == ("a", 1, False)
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
    vectors = FormVectors(fingerprint="MiniLM ünit", vectors_FD=odd)
    await edit_store.commit(NS, Commit(changes=(Change(action=Action.ADD, edit=new("a"), vectors=vectors),)))
    for stored in (await edit_store.stored(NS, "a"), (await snapshot(edit_store))["a"]):
        assert stored.vectors.fingerprint == "MiniLM ünit"
        assert stored.vectors.vectors_FD.dtype == np.float32
        assert stored.vectors.vectors_FD.shape == odd.shape
        assert stored.vectors.vectors_FD.tobytes() == odd.tobytes()


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
    in_snapshot = await snapshot(edit_store)
    assert {edit_id: stored.edit for edit_id, stored in in_snapshot.items()} == {
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
        (Action.PURGE, retired(new("a"))),
        (Action.UPDATE, purged(new("a"))),
    ],
)
async def test_a_commit_that_is_not_well_formed_is_the_callers_mistake(
    edit_store: EditStore, action: Action, edit: Edit
) -> None:
    with pytest.raises(ValueError, match=r"version|namespace|state"):
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


async def test_what_a_key_led_to_can_be_looked_up(edit_store: EditStore) -> None:
    assert await edit_store.receipt(NS, Idempotency(key="k", fingerprint="body")) is None
    first = await add(edit_store, new("a"), key="k", fingerprint="body")
    receipt = await edit_store.receipt(NS, Idempotency(key="k", fingerprint="body"))
    assert receipt == msgspec.structs.replace(first, replayed=True)
    with pytest.raises(IdempotencyKeyReusedError, match="idempotency key 'k'"):
        await edit_store.receipt(NS, Idempotency(key="k", fingerprint="another body"))
    assert await edit_store.receipt("elsewhere", Idempotency(key="k", fingerprint="body")) is None
    with pytest.raises(InvalidRequestError):
        await edit_store.receipt("No Namespace", Idempotency(key="k", fingerprint="body"))


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


# -- several changes at once


async def test_of_a_commit_all_changes_are_made_or_none(edit_store: EditStore) -> None:
    a, b = new("a"), new("b")
    receipt = await edit_store.commit(NS, commit_of_all((Action.ADD, a), (Action.ADD, b)))
    assert [(change.edit_id, change.version) for change in receipt.changes] == [("a", 1), ("b", 1)]
    assert [change.log_id for change in receipt.changes] == [
        entry.log_id for entry in await edit_store.log(NS)
    ]
    with pytest.raises(PreconditionFailedError, match="edit 'b' is at version 1, not 2"):
        await edit_store.commit(
            NS,
            commit_of_all(
                (Action.ADD, new("c")), (Action.UPDATE, next_of(a)), (Action.UPDATE, next_of(next_of(b)))
            ),
        )
    assert [edit.id for edit in await walk(edit_store, limit=10)] == ["a", "b"]
    assert await edit_store.get(NS, "a") == a
    assert (await edit_store.log_head(NS)).length == 2


async def test_a_repeated_commit_of_several_changes_gets_the_whole_receipt(edit_store: EditStore) -> None:
    commit = msgspec.structs.replace(
        commit_of_all((Action.ADD, new("a")), (Action.ADD, new("b"))),
        idempotency=Idempotency(key="k", fingerprint="1"),
    )
    first = await edit_store.commit(NS, commit)
    assert await edit_store.commit(NS, commit) == msgspec.structs.replace(first, replayed=True)


async def test_a_commit_that_expects_the_log_to_end_elsewhere_is_refused(edit_store: EditStore) -> None:
    first = msgspec.structs.replace(commit_of(Action.ADD, new("a")), expected_log_id="0-0")
    end = (await edit_store.commit(NS, first)).changes[0].log_id
    with pytest.raises(PreconditionFailedError, match="the log goes on to"):
        await edit_store.commit(
            NS, msgspec.structs.replace(commit_of(Action.ADD, new("b")), expected_log_id="0-0")
        )
    await edit_store.commit(NS, msgspec.structs.replace(commit_of(Action.ADD, new("b")), expected_log_id=end))
    assert len(await edit_store.log(NS)) == 2


@pytest.mark.parametrize("count", [0, MAX_CHANGES + 1])
async def test_a_commit_of_no_or_too_many_changes_is_the_callers_mistake(
    edit_store: EditStore, count: int
) -> None:
    (change,) = commit_of(Action.ADD, new("a")).changes
    with pytest.raises(ValueError, match="changes; 1 to 10,000 are allowed"):
        await edit_store.commit(NS, Commit(changes=(change,) * count))


async def test_a_commit_cannot_change_an_edit_twice(edit_store: EditStore) -> None:
    with pytest.raises(ValueError, match="cannot change an edit twice"):
        await edit_store.commit(NS, commit_of_all((Action.ADD, new("a")), (Action.ADD, new("a"))))
    assert await edit_store.namespaces() == []


async def test_vectors_that_a_change_leaves_out_stay(edit_store: EditStore) -> None:
    await add(edit_store, new("a"), seed=1)
    (change,) = commit_of(Action.RETIRE, retired(new("a"))).changes
    await edit_store.commit(NS, Commit(changes=(msgspec.structs.replace(change, vectors=None),)))
    assert (await edit_store.stored(NS, "a")).vectors.fingerprint == "encoder 1"


async def test_the_log_names_what_each_version_rests_on(edit_store: EditStore) -> None:
    """Of the version that the entry made, not of the current one."""
    first = new("a", ticket="T 1", institution="Acme", legal_basis="§ 5", source_url="https://a.example/1")
    await add(edit_store, first)
    second = next_of(first, ticket=None, source="Minutes", source_url=None, source_sha256="0" * 64)
    await update(edit_store, second)
    names = ("ticket", "institution", "source", "source_url", "source_sha256", "legal_basis")
    assert [tuple(getattr(entry, name) for name in names) for entry in await edit_store.log(NS)] == [
        ("T 1", "Acme", None, "https://a.example/1", None, "§ 5"),
        (None, "Acme", "Minutes", None, "0" * 64, "§ 5"),
    ]


# -- purge


async def test_a_purge_leaves_tombstones_of_all_versions_and_no_vectors(edit_store: EditStore) -> None:
    first = new(
        "a",
        author="Ann",
        reason="news",
        subject="Acme",
        ticket="T 1",
        institution="Acme",
        source_url="http://a",
    )
    await add(edit_store, first)
    await update(edit_store, next_of(first, target_new="Bea"))
    gone = purged(next_of(first), Attribution(author="Cy", reason="asked to", ticket="T 2"))
    await edit_store.commit(NS, commit_of(Action.PURGE, gone))
    versions = await edit_store.versions(NS, "a")
    assert versions == [tombstone(first), tombstone(next_of(first)), gone]
    assert (gone.author, gone.reason, gone.prompt, gone.state) == ("Cy", "asked to", "", EditState.PURGED)
    assert await edit_store.get(NS, "a", version=1) == tombstone(first)
    assert (await edit_store.stored(NS, "a")).vectors == NO_VECTORS
    assert await snapshot(edit_store) == {}
    entries = await edit_store.log(NS)
    assert [(entry.action, entry.version, entry.author, entry.reason, entry.ticket) for entry in entries] == [
        (Action.ADD, 1, "Ann", None, None),
        (Action.UPDATE, 2, "Ann", None, None),
        (Action.PURGE, 3, "Cy", "asked to", "T 2"),
    ]
    assert {(entry.institution, entry.source_url) for entry in entries} == {(None, None)}
    with pytest.raises(EditConflictError, match="was purged, and its id is not given out again"):
        await add(edit_store, new("a"))
