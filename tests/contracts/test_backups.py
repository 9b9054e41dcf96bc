"""A backup restores a namespace to the letter, or leaves nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest
import redis

from serac_gateway.control_plane.backup import backup, restore
from serac_gateway.domain.edits import Attribution, purged, retired
from serac_gateway.errors import EditConflictError, InvalidRequestError, StoreUnavailableError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.log_chain import LogEvidence
from serac_gateway.stores.log_verification import verify_log
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import Action
from tests.contracts.edit_store_calls import NS, add, commit_of, new, next_of, snapshot, update, walk
from tests.contracts.served_stores import ServedStore


async def made(store: EditStore | None = None, count: int = 450) -> list[bytes]:
    """The lines of a backup of a namespace where everything has happened."""
    store = store or InMemoryEditStore()
    for number in range(count):
        await add(store, new(f"m{number:03d}"), seed=number)
    a, b, c = map(new, "abc")
    for edit in (a, b, c):
        await add(store, edit)
    await update(store, next_of(a, author="Ann\nBea", target_new="«ü»"), seed=7)
    await store.commit(NS, commit_of(Action.RETIRE, retired(b)))
    await store.commit(NS, commit_of(Action.PURGE, purged(c, Attribution(reason="asked"))))
    return [msgspec.json.encode(piece) async for piece in backup(store, NS)]


async def each(lines: Sequence[bytes | None]) -> AsyncIterator[bytes | None]:
    for line in lines:
        yield line


async def contents(store: EditStore) -> object:
    edits = await walk(store, limit=100)
    return (
        edits,
        [await store.versions(NS, edit.id) for edit in edits],
        await store.log(NS, limit=10_000),
        await store.log_head(NS),
        {
            edit_id: (item.vectors.fingerprint, item.vectors.vectors_FD.tobytes())
            for edit_id, item in (await snapshot(store)).items()
        },
        [[edit.id for edit in await walk(store, limit=100, state=edit.state)] for edit in edits[:4]],
    )


async def test_a_restored_namespace_is_the_same_to_the_letter_and_goes_on(edit_store: EditStore) -> None:
    original = InMemoryEditStore()
    lines = await made(original)
    done = await restore(edit_store.restorer(NS), NS, each(lines))
    assert await contents(edit_store) == await contents(original)
    assert (await verify_log(edit_store, NS)).digest == done.log_digest
    assert await edit_store.namespaces() == [NS]
    await update(edit_store, next_of(next_of(new("a"))))
    assert (await verify_log(edit_store, NS)).length == done.log_entries + 1


async def test_a_backup_of_any_store_can_be_restored_into_another(edit_store: EditStore) -> None:
    lines = await made(edit_store, count=3)
    other = InMemoryEditStore()
    await restore(other.restorer(NS), NS, each(lines))
    assert await contents(other) == await contents(edit_store)


async def test_a_namespace_that_was_used_is_left_as_it_is(edit_store: EditStore) -> None:
    lines = await made(count=3)
    await add(edit_store, new("mine"))
    with pytest.raises(EditConflictError, match="has edits, or had some"):
        await restore(edit_store.restorer(NS), NS, each(lines))
    assert [edit.id for edit in await walk(edit_store, limit=10)] == ["mine"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: lines[:-1], "ends before its head"),
        (lambda lines: lines[1:], "line 1 .* wrong place"),
        (lambda lines: [*lines[:300], *lines[301:]], "line 301 .* does not follow on"),
        (lambda lines: [*lines[:9], lines[9].replace(b"Ann", b"Eve"), *lines[10:]], "line 10 .* was changed"),
        (lambda lines: [*lines[:9], b"{", *lines[10:]], "line 10"),
        (lambda lines: [*lines[:9], None, *lines[10:]], "line 10 .* longer than"),
        (lambda lines: [*lines, lines[-1]], "wrong place"),
        (lambda lines: [lines[0].replace(b'"format":1', b'"format":2'), *lines[1:]], "format 2"),
        (lambda lines: [lines[0].replace(b'"default"', b'"other"'), *lines[1:]], "is of namespace 'other'"),
        (lambda lines: [lines[0], *lines[-3:]], "no entry before names it"),
        (lambda lines: [], "ends before its head"),
    ],
)
async def test_of_a_backup_that_is_not_whole_nothing_stays(
    edit_store: EditStore, damage: object, message: str
) -> None:
    lines = await made()
    assert callable(damage)
    with pytest.raises(InvalidRequestError, match=message):
        await restore(edit_store.restorer(NS), NS, each(damage(lines)))
    assert await edit_store.namespaces() == []
    assert (await edit_store.page(NS)).edits == []
    await restore(edit_store.restorer(NS), NS, each(lines))
    assert (await verify_log(edit_store, NS)).length == 456


async def test_what_is_half_restored_takes_no_commits_and_a_restore_begins_anew(
    served: ServedStore, admin: redis.Redis
) -> None:
    lines = await made()
    restorer = served.store.restorer(NS)
    await restorer.begin()
    await restorer.entries([msgspec.json.decode(line, type=LogEvidence) for line in lines[1:150]])
    with pytest.raises(StoreUnavailableError, match="it is being restored"):
        await add(served.store, new("a"))
    assert await served.store.namespaces() == []
    await restore(served.store.restorer(NS), NS, each(lines))  # whoever began before is gone
    assert (await verify_log(served.store, NS)).length == 456
    assert {key for key in admin.scan_iter("*restor*")} == set()
