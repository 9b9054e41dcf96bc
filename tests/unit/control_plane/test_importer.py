"""An import gives each draft its own outcome, and the same drafts again change nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from serac_gateway.control_plane.importer import EditImport, Imported, Outcome
from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import EditDraft
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.errors import EditConflictError, InvalidRequestError, StoreUnavailableError
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import Commit, Receipt
from serac_gateway.testing import WordEncoder


class FailingStore(InMemoryEditStore):
    failing = False

    async def commit(self, namespace: str, commit: Commit) -> Receipt:
        if self.failing:
            raise StoreUnavailableError("the store's disk is full")
        return await super().commit(namespace, commit)


class Setup:
    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.store, self.encoder = FailingStore(), WordEncoder()
        self.live = ActiveEdits(
            store=self.store, encoder=self.encoder, make_index=lambda: FaissFlatIndex(self.encoder.width)
        )
        self.writer = EditWriter(store=self.store, encoder=self.encoder, active_edits=self.live, pool=pool)

    async def add(self, *drafts: EditDraft) -> list[Outcome]:
        one_import = EditImport(
            writer=self.writer, store=self.store, active_edits=self.live, namespace="default"
        )
        return await one_import.add(drafts)

    async def log_length(self) -> int:
        return (await self.store.log_head("default")).length


@pytest.fixture
def setup() -> Iterator[Setup]:
    with ThreadPoolExecutor(2) as pool:
        yield Setup(pool)


def draft(prompt: str, edit_id: str | None = None, target: str = "x") -> EditDraft:
    return EditDraft(prompt=prompt, target_new=target, id=edit_id)


def added(outcomes: Sequence[Outcome]) -> list[bool]:
    assert all(isinstance(outcome, Imported) for outcome in outcomes)
    return [isinstance(outcome, Imported) and outcome.added for outcome in outcomes]


async def test_each_draft_has_its_own_outcome_in_order(setup: Setup) -> None:
    first, blank, taken, last = await setup.add(
        draft("One?", "one"), draft(""), draft("Other?", "one"), draft("Four?")
    )
    assert isinstance(first, Imported)
    assert isinstance(last, Imported)
    assert (first.edit.id, last.edit.prompt) == ("one", "Four?")
    assert isinstance(blank, InvalidRequestError)
    assert isinstance(taken, EditConflictError)
    assert setup.live.count("default") == 2


async def test_a_batch_is_one_commit_and_one_call_of_the_encoder(setup: Setup) -> None:
    commits = []
    commit_of_store = setup.store.commit

    async def counted(namespace: str, commit: Commit) -> Receipt:
        commits.append(commit)
        return await commit_of_store(namespace, commit)

    setup.store.commit = counted  # type: ignore[method-assign]
    await setup.add(*(draft(f"Question {number}?") for number in range(20)))
    assert [len(commit.changes) for commit in commits] == [20]


async def test_the_same_drafts_again_change_nothing_and_encode_nothing(setup: Setup) -> None:
    drafts = [draft(f"Question {n}?", f"e{n}" if n % 2 else None) for n in range(6)]
    first = await setup.add(*drafts)
    encoded = setup.encoder.texts_encoded
    again = await setup.add(*drafts)
    assert (added(first), added(again)) == ([True] * 6, [False] * 6)
    assert [outcome.edit for outcome in again if isinstance(outcome, Imported)] == [
        outcome.edit for outcome in first if isinstance(outcome, Imported)
    ]
    assert (await setup.log_length(), setup.encoder.texts_encoded) == (6, encoded)


async def test_a_draft_without_id_that_says_the_same_as_one_before_is_added_once(setup: Setup) -> None:
    outcomes = await setup.add(draft("One?", "mine"), draft("One?"), draft("Two?"), draft("Two?"))
    assert added(outcomes) == [True, False, True, False]
    assert isinstance(outcomes[1], Imported)
    assert outcomes[1].edit.id == "mine"


async def test_a_draft_without_id_is_added_again_after_the_same_one_was_retired(setup: Setup) -> None:
    (first,) = await setup.add(draft("One?"))
    assert isinstance(first, Imported)
    await setup.writer.write(first.edit.namespace, NextVersion.retired(first.edit))
    assert added(await setup.add(draft("One?"))) == [True]


async def test_an_id_that_was_retired_or_purged_is_refused(setup: Setup) -> None:
    first, second = await setup.add(draft("One?", "retired"), draft("Two?", "purged"))
    assert isinstance(first, Imported)
    assert isinstance(second, Imported)
    await setup.writer.write(first.edit.namespace, NextVersion.retired(first.edit))
    await setup.writer.write(second.edit.namespace, NextVersion.purged(second.edit))
    retired, purged, other = await setup.add(
        draft("One?", "retired"), draft("Two?", "purged"), draft("Three?", "other")
    )
    assert "exists already (perhaps retired)" in str(retired)
    assert "was purged, and its id is not given out again" in str(purged)
    assert isinstance(other, Imported)


async def test_a_store_that_fails_is_the_outcome_of_every_good_draft(setup: Setup) -> None:
    setup.store.failing = True
    failed, blank = await setup.add(draft("One?"), draft(""))
    assert isinstance(failed, StoreUnavailableError)
    assert isinstance(blank, InvalidRequestError)
    setup.store.failing = False
    assert added(await setup.add(draft("One?"))) == [True]
