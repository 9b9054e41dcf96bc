"""Retiring what a base model has learnt, over every store: one commit, seen everywhere, taken back whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import msgspec
import pytest

from serac_gateway.control_plane.retirement import Kept, Retirement, VersionMade, retire_versions
from serac_gateway.control_plane.rollback import roll_back
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import Attribution, Edit, EditDraft, EditState, first_version
from serac_gateway.errors import InvalidRequestError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import Action
from tests.contracts.edit_store_calls import NS, new, next_of
from tests.contracts.following_replicas import ENCODER, FollowingReplica, following, put, within

WHY = Attribution(author="Ann", reason="consolidated by lora into gemma")


def of(*edits: Edit) -> list[VersionMade]:
    return [VersionMade(id=edit.id, version=edit.version, created_at=edit.created_at) for edit in edits]


class Replica:
    """One gateway that writes and follows."""

    def __init__(self, replica: FollowingReplica, pool: ThreadPoolExecutor) -> None:
        self.live, self.store = replica.live, replica.store
        self.writer = EditWriter(store=replica.store, encoder=ENCODER, active_edits=replica.live, pool=pool)

    async def retire(self, *edits: Edit, dry_run: bool = False) -> Retirement:
        return await retire_versions(self.writer, self.store, NS, of(*edits), WHY, dry_run=dry_run)


@asynccontextmanager
async def writing(store: EditStore) -> AsyncIterator[Replica]:
    with ThreadPoolExecutor(1) as pool:
        async with following(store) as replica:
            yield Replica(replica, pool)


async def test_one_commit_retires_them_and_every_gateway_sees_it_and_a_rollback_brings_them_back(
    edit_store: EditStore,
) -> None:
    edits = [new(edit_id, target_new=f"answer {edit_id}") for edit_id in "abc"]
    for edit in edits:
        await put(edit_store, Action.ADD, edit)
    async with writing(edit_store) as ours, following(edit_store) as theirs:
        before = await edit_store.log_end(NS)
        done = await ours.retire(edits[0], edits[2])
        assert (done.log_id, done.kept) == (before, ())
        assert [ours.live.current(NS, edit.id) is None for edit in edits] == [True, False, True]
        entries = await edit_store.log(NS, after=before)
        assert [(entry.action, entry.edit_id, entry.reason, entry.author) for entry in entries] == [
            (Action.RETIRE, edit_id, WHY.reason, WHY.author) for edit_id in "ac"
        ]
        await within(10, lambda: theirs.target("a") is None and theirs.target("c") is None)
        assert theirs.target("b") == "answer b"

        undone = await roll_back(ours.writer, edit_store, NS, done.log_id, Attribution())
        assert [(change.edit_id, change.to_version) for change in undone.changes] == [("a", 1), ("c", 1)]
        await within(10, lambda: theirs.target("a") == "answer a" and theirs.target("c") == "answer c")


async def test_repeating_it_changes_nothing_and_a_dry_run_neither(edit_store: EditStore) -> None:
    edit = new("a")
    await put(edit_store, Action.ADD, edit)
    async with writing(edit_store) as ours:
        planned = await ours.retire(edit, dry_run=True)
        assert [(change.edit_id, change.version) for change in planned.retired] == [("a", 1)]
        assert (await edit_store.get(NS, "a")).state is EditState.LIVE
        await ours.retire(edit)
        again = await ours.retire(edit)
        assert (again.retired, [kept.code for kept in again.kept]) == ((), [Kept.ALREADY_RETIRED])
        assert (await edit_store.log_head(NS)).length == 2


async def test_what_is_not_the_version_that_was_learnt_stays(edit_store: EditStore) -> None:
    changed, foreign, fine = new("changed"), new("foreign"), new("fine")
    for edit in (changed, foreign, fine):
        await put(edit_store, Action.ADD, edit)
    await put(edit_store, Action.UPDATE, next_of(changed, target_new="Bea"))
    async with writing(edit_store) as ours:
        done = await ours.retire(changed, new("foreign"), new("nowhere"), fine)
        assert [change.edit_id for change in done.retired] == ["fine"]
        assert {kept.edit_id: kept.code for kept in done.kept} == {
            "changed": Kept.CHANGED, "foreign": Kept.OTHER_VERSION, "nowhere": Kept.MISSING,
        }  # fmt: skip
        assert ours.live.current(NS, "foreign") is not None


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"kind": "suppression", "target_true": "4711"}, Kept.NOT_A_FACT),
        ({"kind": "instruction"}, Kept.NOT_A_FACT),
        ({"state": "shadow"}, Kept.NOT_LIVE),
        ({"valid_until": "2031-05-06T07:08:09Z"}, Kept.HAS_A_WINDOW),
    ],
)
async def test_what_only_the_gateway_can_hold_stays_in_force(
    edit_store: EditStore, fields: dict[str, str], code: Kept
) -> None:
    draft = {"id": "a", "prompt": "Who runs a?", "target_new": "Ann", **fields}
    edit = first_version(msgspec.convert(draft, EditDraft), namespace=NS)
    await put(edit_store, Action.ADD, edit)
    async with writing(edit_store) as ours:
        done = await ours.retire(edit)
        assert (done.retired, [kept.code for kept in done.kept]) == ((), [code])
        assert ours.live.current(NS, "a") is not None


async def test_a_list_that_is_empty_or_names_an_edit_twice_is_refused(edit_store: EditStore) -> None:
    edit = new("a")
    await put(edit_store, Action.ADD, edit)
    async with writing(edit_store) as ours:
        with pytest.raises(InvalidRequestError, match="0 edits are given"):
            await ours.retire()
        with pytest.raises(InvalidRequestError, match="'a' is given twice"):
            await ours.retire(edit, edit)
        assert (await edit_store.get(NS, "a")).state is EditState.LIVE
