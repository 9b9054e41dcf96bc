"""A retirement is made of what is there when it is made."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from serac_gateway.control_plane.retirement import Kept, Retirement, VersionMade, retire_versions
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import NO_ATTRIBUTION, Edit, EditState
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.errors import PreconditionFailedError
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import Action, Commit, Receipt
from serac_gateway.testing import WordEncoder
from tests.contracts.edit_store_calls import NS, add, commit_of, new, next_of, update


class BusyStore(InMemoryEditStore):
    """Somebody else changes an edit just before each of the next commits."""

    def __init__(self) -> None:
        super().__init__()
        self.edit = new("busy")
        self.interruptions = 0

    async def commit(self, namespace: str, commit: Commit) -> Receipt:
        if self.interruptions:
            self.interruptions -= 1
            self.edit = next_of(self.edit)
            await super().commit(namespace, commit_of(Action.UPDATE, self.edit))
        return await super().commit(namespace, commit)


class Setup:
    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.store, encoder = BusyStore(), WordEncoder()
        live = ActiveEdits(
            store=self.store, encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width)
        )
        self.writer = EditWriter(store=self.store, encoder=encoder, active_edits=live, pool=pool)

    async def retire(self, *edits: Edit) -> Retirement:
        versions = [
            VersionMade(id=edit.id, version=edit.version, created_at=edit.created_at) for edit in edits
        ]
        return await retire_versions(self.writer, self.store, NS, versions, NO_ATTRIBUTION)


@pytest.fixture
def setup() -> Iterator[Setup]:
    with ThreadPoolExecutor(2) as pool:
        yield Setup(pool)


async def test_an_edit_that_somebody_changes_meanwhile_stays_and_the_others_are_retired(
    setup: Setup,
) -> None:
    busy, calm = setup.store.edit, new("calm")
    await add(setup.store, busy)
    await add(setup.store, calm)
    setup.store.interruptions = 2
    done = await setup.retire(busy, calm)
    assert [change.edit_id for change in done.retired] == ["calm"]
    assert [(kept.edit_id, kept.code) for kept in done.kept] == [("busy", Kept.CHANGED)]
    assert (await setup.store.get(NS, "busy")).state is EditState.LIVE
    entries = await setup.store.log(NS)
    assert [entry.edit_id for entry in entries if entry.action is Action.RETIRE] == ["calm"]
    assert done.log_id == entries[-2].log_id, "nothing came between it and the commit"


async def test_where_others_write_all_the_while_it_is_refused_and_nothing_is_retired(setup: Setup) -> None:
    busy, calm = setup.store.edit, new("calm")
    await add(setup.store, busy)
    await add(setup.store, calm)
    setup.store.interruptions = 100
    with pytest.raises(PreconditionFailedError):
        await setup.retire(calm)
    assert (await setup.store.get(NS, "calm")).state is EditState.LIVE


async def test_a_retired_edit_that_was_restored_is_another_version(setup: Setup) -> None:
    calm = new("calm")
    await add(setup.store, calm)
    await setup.retire(calm)
    await update(setup.store, next_of(next_of(calm)))
    done = await setup.retire(calm)
    assert (done.retired, [kept.code for kept in done.kept]) == ((), [Kept.CHANGED])
