"""Gateways without their HTTP side: edits in force that follow a store, and what must hold of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np

from serac_gateway.domain.edits import ACTIVE_STATES, Edit, forms
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.edit_index.follower import LogFollower
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import Action, Change, Commit, FormVectors, Receipt
from serac_gateway.testing import WordEncoder
from tests.contracts.edit_store_calls import NS, snapshot

ENCODER = WordEncoder()
PROBE = "Who runs the harbour office?"


class FollowingReplica:
    """One gateway's memory."""

    def __init__(self, store: EditStore, *, max_staleness_s: float = 10.0) -> None:
        self.store = store
        self.live = ActiveEdits(
            store=store, encoder=ENCODER, make_index=lambda: FaissFlatIndex(ENCODER.width)
        )
        self.follower = LogFollower(store=store, active_edits=self.live, max_staleness_s=max_staleness_s)

    async def start(self) -> None:
        await self.live.load()
        self.follower.start()
        await self.follower.caught_up()

    def target(self, edit_id: str, namespace: str = NS) -> str | None:
        """What the replica answers in place of the base model."""
        edit = self.live.current(namespace, edit_id)
        return None if edit is None else edit.target_new


@asynccontextmanager
async def following(store: EditStore, **settings: float) -> AsyncIterator[FollowingReplica]:
    replica = FollowingReplica(store, **settings)
    await replica.start()
    try:
        yield replica
    finally:
        await replica.follower.close()


def made(action: Action, edit: Edit) -> Commit:
    """A commit as the gateway makes one, with the encoder's own vectors."""
    vectors = None
    if edit.state in ACTIVE_STATES:
        vectors = FormVectors(fingerprint=ENCODER.fingerprint, vectors_FD=ENCODER.encode(forms(edit)))
    return Commit(changes=(Change(action=action, edit=edit, vectors=vectors),))


async def put(store: EditStore, action: Action, edit: Edit) -> Receipt:
    return await store.commit(edit.namespace, made(action, edit))


async def within(timeout_s: float, holds: Callable[[], bool], what: object = "") -> float:
    """How long it took until `holds`, in seconds; fails if it does not."""
    started_s = time.monotonic()
    while not holds():
        assert time.monotonic() < started_s + timeout_s, what
        await asyncio.sleep(0.002)
    return time.monotonic() - started_s


async def assert_equals_brute_force(live: ActiveEdits, store: EditStore, namespace: str = NS) -> None:
    """The edits in force are the stored ones, and the index finds what comparing all vectors finds."""
    stored = await snapshot(store, namespace)
    assert {edit.id: edit for edit in live.all(namespace)} == {
        edit_id: item.edit for edit_id, item in stored.items()
    }
    assert live.count(namespace) == len(stored)
    if not stored:
        return
    queries_BD = ENCODER.encode(
        [PROBE, "mayor of Springfield", *(item.edit.prompt for item in stored.values())][:50]
    )
    now = max(item.edit.created_at for item in stored.values())
    rows = live.candidates(namespace, queries_BD, len(stored))
    for query_D, row in zip(queries_BD, rows, strict=True):
        expected = {
            edit_id: float(np.max(item.vectors.vectors_FD @ query_D))
            for edit_id, item in stored.items()
            if item.edit.is_in_force(now)
        }
        similarities = {candidate.edit.id: candidate.similarity for candidate in row}
        assert similarities.keys() == expected.keys()
        for edit_id, similarity in expected.items():
            assert abs(similarities[edit_id] - similarity) < 1e-4
