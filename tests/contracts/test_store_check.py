"""A check of the store finds what does not fit."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import redis

from serac_gateway.control_plane.integrity import StoreCheck, StoreReport
from serac_gateway.domain.edits import Attribution, Edit, forms, purged, retired
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import Action, Change, Commit, FormVectors, StoredEdit
from serac_gateway.stores.redis.keys import NamespaceKeys
from serac_gateway.stores.redis.records import packed_vectors
from serac_gateway.testing import WordEncoder
from tests.contracts.edit_store_calls import NS, new, next_of
from tests.contracts.served_stores import ServedStore

ENCODER = WordEncoder()
KEYS = NamespaceKeys(NS)


async def commit(store: EditStore, action: Action, edit: Edit) -> None:
    vectors = FormVectors(fingerprint=ENCODER.fingerprint, vectors_FD=ENCODER.encode(forms(edit)))
    change = Change(action=action, edit=edit, vectors=None if action is Action.PURGE else vectors)
    await store.commit(NS, Commit(changes=(change,)))


async def filled(store: EditStore) -> ActiveEdits:
    a, b, c, d = map(new, "abcd")
    for edit in (a, b, c, d):
        await commit(store, Action.ADD, edit)
    await commit(store, Action.UPDATE, next_of(a, target_new="Bea"))
    await commit(store, Action.RETIRE, retired(b))
    await commit(store, Action.PURGE, purged(c, Attribution(reason="asked")))
    live = ActiveEdits(store=store, encoder=ENCODER, make_index=lambda: FaissFlatIndex(ENCODER.width))
    await live.load()
    return live


async def report_of(store: EditStore, live: ActiveEdits) -> StoreReport:
    return await StoreCheck(store=store, active_edits=live).run(NS)


async def test_a_store_that_nobody_touched_is_sound(edit_store: EditStore) -> None:
    report = await report_of(edit_store, await filled(edit_store))
    assert report.problems == ()
    assert report.sound
    assert {state.value: count for state, count in report.edits.items() if count} == {
        "live": 2, "retired": 1, "purged": 1,
    }  # fmt: skip
    assert (report.log_entries, report.encoders) == (7, {ENCODER.fingerprint: 3})
    assert report.log_digest == (await edit_store.log_head(NS)).digest


async def test_an_empty_store_is_sound(edit_store: EditStore) -> None:
    live = ActiveEdits(store=edit_store, encoder=ENCODER, make_index=lambda: FaissFlatIndex(ENCODER.width))
    assert (await report_of(edit_store, live)).sound


async def test_an_edit_that_is_not_in_force_here_as_it_is_stored_is_named(edit_store: EditStore) -> None:
    live = await filled(edit_store)
    await commit(edit_store, Action.ADD, new("e"))  # by another gateway
    a = await edit_store.stored(NS, "a")
    newer = msgspec.structs.replace(a.edit, version=9)
    await live.apply(NS, [StoredEdit(edit=newer, vectors=a.vectors)])
    report = await report_of(edit_store, live)
    assert not report.sound
    assert report.problems == (
        "edit 'a': version 2 is stored as in force, and version 9 is in force in this process",
        "edit 'e': version 1 is stored as in force, and version None is in force in this process",
    )


def other_record(admin: redis.Redis) -> None:
    admin.hset(KEYS.current, "d", admin.hget(KEYS.current, "d").replace(b"Ann", b"Eve"))


def no_vectors(admin: redis.Redis) -> None:
    admin.hdel(KEYS.vectors, "d")


def short_vectors(admin: redis.Redis) -> None:
    vectors = FormVectors(fingerprint="x", vectors_FD=np.full((2, 4), 0.1, dtype=np.float32))
    admin.hset(KEYS.vectors, "d", packed_vectors(vectors))


def torn_vectors(admin: redis.Redis) -> None:
    admin.hset(KEYS.vectors, "d", b"torn")


def unlisted(admin: redis.Redis) -> None:
    admin.zrem(KEYS.ids + ":live", "d")


def log_without_its_end(admin: redis.Redis) -> None:
    admin.xdel(KEYS.log, admin.xrevrange(KEYS.log, count=1)[0][0])


@pytest.mark.parametrize("served", ["redis_server"], indirect=True)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_record, "edit 'd': its current record is not that of version 1"),
        (no_vectors, "edit 'd': it has 2 forms and 0 vectors"),
        (short_vectors, "edit 'd': a vector is not of unit length"),
        (torn_vectors, "edit 'd': cannot be read"),
        (unlisted, "2 edits are live, and 1 are listed as such"),
        (log_without_its_end, "log: the log ends with entry"),
    ],
)
async def test_damage_in_redis_is_reported_with_its_place(
    served: ServedStore, admin: redis.Redis, damage: Callable[[redis.Redis], None], message: str
) -> None:
    live = await filled(served.store)
    damage(admin)
    report = await report_of(served.store, live)
    assert not report.sound
    assert any(problem.startswith(message) for problem in report.problems), report.problems
