"""A rollback of a namespace is made as a whole, of what is there when it is made."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from serac_gateway.control_plane.rollback import Rollback, roll_back
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import NO_ATTRIBUTION, EditState
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.errors import InvalidRequestError, PreconditionFailedError
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import MAX_CHANGES, Action, Commit, Receipt
from serac_gateway.testing import WordEncoder
from tests.contracts.edit_store_calls import NS, add, commit_of, commit_of_all, new, next_of, walk


class BusyStore(InMemoryEditStore):
    """Somebody else adds an edit just before each of the next commits."""

    interruptions = 0

    async def commit(self, namespace: str, commit: Commit) -> Receipt:
        if self.interruptions:
            self.interruptions -= 1
            await super().commit(namespace, commit_of(Action.ADD, new(f"other{self.interruptions}")))
        return await super().commit(namespace, commit)


class Setup:
    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.store, encoder = BusyStore(), WordEncoder()
        live = ActiveEdits(
            store=self.store, encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width)
        )
        self.writer = EditWriter(store=self.store, encoder=encoder, active_edits=live, pool=pool)

    async def roll_back(self, log_id: str, *, dry_run: bool = False) -> Rollback:
        return await roll_back(self.writer, self.store, NS, log_id, NO_ATTRIBUTION, dry_run=dry_run)


@pytest.fixture
def setup() -> Iterator[Setup]:
    with ThreadPoolExecutor(2) as pool:
        yield Setup(pool)


async def test_what_others_commit_just_before_is_taken_back_too(setup: Setup) -> None:
    await add(setup.store, new("a"))
    setup.store.interruptions = 2
    done = await setup.roll_back("0-0")
    assert [change.edit_id for change in done.changes] == ["a", "other0", "other1"]
    assert {edit.state for edit in await walk(setup.store, limit=10)} == {EditState.RETIRED}
    rolled_back = [entry for entry in await setup.store.log(NS) if entry.action is Action.ROLLBACK]
    assert {entry.reason for entry in rolled_back} == {"rollback to log id 0-0"}


async def test_where_others_write_all_the_while_it_is_refused_and_nothing_is_taken_back(
    setup: Setup,
) -> None:
    await add(setup.store, new("a"))
    setup.store.interruptions = 100
    with pytest.raises(PreconditionFailedError, match="the log goes on to"):
        await setup.roll_back("0-0")
    assert {edit.state for edit in await walk(setup.store, limit=100)} == {EditState.LIVE}


async def test_nothing_to_take_back_makes_no_commit(setup: Setup) -> None:
    first = new("a")
    end = (await add(setup.store, first)).changes[0].log_id
    assert (await setup.roll_back(end)).changes == ()
    await setup.store.commit(NS, commit_of(Action.UPDATE, next_of(first, target_new="Bea")))
    await setup.store.commit(NS, commit_of(Action.UPDATE, next_of(next_of(first))))
    assert (await setup.roll_back(end)).changes == (), "it is what it was again"
    assert (await setup.store.log_head(NS)).length == 3


async def test_more_edits_than_one_commit_takes_are_refused_with_the_remedy(setup: Setup) -> None:
    edits = [new(f"e{number:05d}") for number in range(MAX_CHANGES + 1)]
    first = await setup.store.commit(NS, commit_of_all(*((Action.ADD, edit) for edit in edits[:5_000])))
    await setup.store.commit(NS, commit_of_all(*((Action.ADD, edit) for edit in edits[5_000:])))
    with pytest.raises(InvalidRequestError, match="roll back to later entries first"):
        await setup.roll_back("0-0")
    assert len((await setup.roll_back(first.changes[-1].log_id)).changes) == 5_001
    assert len((await setup.roll_back("0-0")).changes) == 5_000, "which the remedy made possible"
