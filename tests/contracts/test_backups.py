"""A backup restores a namespace to the letter, or leaves nothing."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest
import redis

from serac_gateway.control_plane.backup import backup
from serac_gateway.control_plane.restore import Restored
from serac_gateway.control_plane.restore import restore as restore_backup
from serac_gateway.domain.edits import Attribution, EditState, purged, retired
from serac_gateway.errors import EditConflictError, InvalidRequestError, StoreUnavailableError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.log_chain import LogEvidence
from serac_gateway.stores.log_verification import verify_log
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import Action
from tests.contracts.edit_store_calls import NS, add, commit_of, new, next_of, snapshot, update, walk
from tests.contracts.made_backups import StrangersBackup
from tests.contracts.served_stores import ServedStore

KEY = b"k" * 32


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
    return [line async for line in backup(store, NS, KEY)]


async def restore(
    store: EditStore, lines: Sequence[bytes | None], *, namespace: str = NS, key: bytes = KEY, **more: object
) -> Restored:
    folder = Path(tempfile.gettempdir())
    return await restore_backup(
        store.restorer(namespace), namespace, each(lines), key=key, folder=folder, **more
    )


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
    done = await restore(edit_store, lines)
    assert await contents(edit_store) == await contents(original)
    assert (await verify_log(edit_store, NS)).digest == done.log_digest
    assert await edit_store.namespaces() == [NS]
    await update(edit_store, next_of(next_of(new("a"))))
    assert (await verify_log(edit_store, NS)).length == done.log_entries + 1


async def test_a_backup_of_any_store_can_be_restored_into_another(edit_store: EditStore) -> None:
    lines = await made(edit_store, count=3)
    other = InMemoryEditStore()
    await restore(other, lines)
    assert await contents(other) == await contents(edit_store)


async def test_a_namespace_that_was_used_is_left_as_it_is(edit_store: EditStore) -> None:
    lines = await made(count=3)
    await add(edit_store, new("mine"))
    with pytest.raises(EditConflictError, match="has edits, or had some"):
        await restore(edit_store, lines)
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
        (lambda lines: [lines[0].replace(b'"format":2', b'"format":3'), *lines[1:]], "format 3"),
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
        await restore(edit_store, damage(lines))
    assert await edit_store.namespaces() == []
    assert (await edit_store.page(NS)).edits == []
    await restore(edit_store, lines)
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
    await restore(served.store, lines)  # whoever began before is gone
    assert (await verify_log(served.store, NS)).length == 456
    assert {key for key in admin.scan_iter("*restor*")} == set()


OTHER_KEY = b"o" * 32


def stranger(**fields: object) -> StrangersBackup:
    """A backup of one edit, `a`, whose record says something else where `fields` are given."""
    return StrangersBackup(NS).entry(msgspec.structs.replace(new("a"), **fields), edit_id="a")


FACT = msgspec.json.encode(new("a")).decode()


@pytest.mark.parametrize(
    ("made_up", "complaint"),
    [
        (stranger(namespace="bolt"), "it is of edit 'a' in namespace 'bolt'"),
        (stranger(namespace="../..{x}"), "in namespace '../..{x}'"),
        (stranger(id="b0"), "it is of edit 'b0'"),
        (stranger(version=7), "it is of version 7"),
        (stranger(prompt=" "), "its prompt is not allowed"),
        (stranger(paraphrases=("x?",) * 3_000), "its paraphrases is not allowed: the limit is 32"),
        (stranger(aliases=("x",) * 3_000), "its aliases is not allowed: the limit is 200"),
        (stranger(aliases=("x",)), "its subject is not allowed"),
        (stranger(target_new="x" * 500_000), "its target_new is not allowed: the limit is 2,000"),
        (stranger(state=EditState.PURGED), "purged and has content"),
        (stranger(state=EditState.CANARY), "its canary_share is not allowed"),
        (StrangersBackup(NS).entry('{"id":"a"}', edit_id="a"), "it is no edit"),
        (StrangersBackup(NS).entry(FACT.replace('"id"', '"spy":1,"id"', 1), edit_id="a"), "it is no edit"),
        (StrangersBackup(NS).entry(FACT, edit_id="a", action="steal"), "cannot be what was logged"),
        (StrangersBackup(NS).entry(FACT, edit_id="a", action=Action.PURGE), "it is in state live"),
        (stranger().vectors("a", 3), "has 2 forms and 3 vectors"),
        (stranger().vectors("a", 2, value=float("nan")), "not of unit length"),
        (stranger().vectors("a", 2, value=float("inf")), "not of unit length"),
        (stranger().vectors("a", 2, value=0.5), "not of unit length"),
        (stranger().vectors("a", 2, fingerprint="ours"), "8 dimensions, and that encoder's have 384"),
        (stranger().vectors("a", 2, fingerprint="f" * 501), "longer than 500"),
    ],
)
@pytest.mark.parametrize("key", [KEY, None])
async def test_what_no_commit_would_have_stored_is_refused_before_anything_is_written(
    edit_store: EditStore, made_up: StrangersBackup, complaint: str, key: bytes | None
) -> None:
    """Also if it is sealed, and also if an admin vouches for it."""
    with pytest.raises(InvalidRequestError) as refused:
        await restore(edit_store, made_up.lines(key), accept_unsealed=key is None, widths={"ours": 384})
    assert complaint in refused.value.message
    assert await edit_store.namespaces() == []
    await edit_store.restorer(NS).check_unused()


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (stranger().lines(), "the backup has no seal"),
        (stranger().lines(OTHER_KEY), "sealed with another key"),
        ([*stranger().lines(KEY)[:1], *stranger(target_new="Eve").lines(KEY)[1:]], "the seal does not fit"),
    ],
)
async def test_a_backup_that_our_key_did_not_seal_is_restored_only_if_an_admin_vouches_for_it(
    edit_store: EditStore, lines: list[bytes], complaint: str
) -> None:
    with pytest.raises(InvalidRequestError, match=complaint) as refused:
        await restore(edit_store, lines)
    assert refused.value.field == "seal"
    assert await edit_store.namespaces() == []
    restored = await restore(edit_store, lines, accept_unsealed=True)
    assert not restored.sealed
    assert (await edit_store.get(NS, "a")).prompt == "Who runs a?"


async def test_a_sealed_backup_proves_more_than_arithmetic(edit_store: EditStore) -> None:
    lines = await made(count=3)
    assert (await restore(edit_store, lines)).sealed


async def test_an_edit_purged_while_the_backup_was_made_is_restored_as_a_tombstone(
    edit_store: EditStore,
) -> None:
    """The lines before the purge hold its content and its vectors; the restored store does not."""
    gone = purged(new("a"))
    backup_lines = (
        StrangersBackup(NS)
        .entry(new("a"), edit_id="a")
        .vectors("a", 2)
        .entry(gone, edit_id="a", version=2, action=Action.PURGE)
        .lines(KEY)
    )
    await restore(edit_store, backup_lines)
    assert (await verify_log(edit_store, NS)).length == 2
    assert {edit.prompt for edit in await edit_store.versions(NS, "a")} == {""}
    assert len((await edit_store.stored(NS, "a")).vectors.vectors_FD) == 0


async def test_the_secret_of_a_store_is_made_once(edit_store: EditStore) -> None:
    secret = await edit_store.backup_secret()
    assert len(secret) == 32
    assert await edit_store.backup_secret() == secret


async def test_a_data_folder_that_was_removed_is_made_anew_and_one_that_cannot_be_is_an_error(
    tmp_path: Path,
) -> None:
    lines = await made(count=3)
    gone, blocked = tmp_path / "gone", tmp_path / "file"
    blocked.write_text("in the way")
    store = InMemoryEditStore()
    with pytest.raises(StoreUnavailableError, match=r"data folder .*file.* cannot be written.*restore again"):
        await restore_backup(store.restorer(NS), NS, each(lines), key=KEY, folder=blocked)
    assert await store.namespaces() == []
    assert (await restore_backup(store.restorer(NS), NS, each(lines), key=KEY, folder=gone)).sealed
    assert list(gone.iterdir()) == [], "the file in which it waited had no name"


async def test_what_waits_to_be_checked_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serac_gateway.control_plane.restore.MAX_SPOOL_BYTES", 100_000)
    store = InMemoryEditStore()
    with pytest.raises(InvalidRequestError, match="longer than 100,000 bytes") as refused:
        await restore(store, await made())
    assert refused.value.details == {"limit": 100_000}
    assert await store.namespaces() == []
