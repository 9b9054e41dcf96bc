"""The order of the log is the order of commits, whatever the clocks of gateways and of the store say."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import msgspec

from serac_gateway.control_plane.rollback import roll_back
from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import NO_ATTRIBUTION
from serac_gateway.domain.queries import Query
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.routing.router import EditRouter
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.log_chain import LogEvidence, LogHead, chained, fields_digest, genesis, sealed
from serac_gateway.stores.log_verification import verify_log
from serac_gateway.stores.records import Action, LogEntry, log_id_order
from serac_gateway.testing import ThresholdClassifier, WordEncoder
from tests.contracts.edit_store_calls import NS, add, new, next_of, update
from tests.contracts.following_replicas import ENCODER, following, put, within

AHEAD, BEHIND = datetime(2099, 1, 1, tzinfo=UTC), datetime(1999, 1, 1, tzinfo=UTC)
FUTURE = f"{int(AHEAD.timestamp() * 1_000)}-7"


def in_order(entries: Sequence[LogEntry]) -> bool:
    ids = [entry.log_id for entry in entries]
    return ids == sorted(set(ids), key=log_id_order)


async def test_gateways_whose_clocks_differ_make_one_order(edit_store: EditStore) -> None:
    first = msgspec.structs.replace(new("a"), created_at=AHEAD)
    second = next_of(first, target_new="Bea", created_at=BEHIND)
    third = next_of(second, target_new="Cleo", created_at=AHEAD)
    other = msgspec.structs.replace(new("b"), created_at=BEHIND)
    await add(edit_store, first)
    await update(edit_store, second)
    await add(edit_store, other)
    await update(edit_store, third)

    assert await edit_store.versions(NS, "a") == [first, second, third]
    entries = await edit_store.log(NS)
    assert in_order(entries)
    assert [(entry.edit_id, entry.version) for entry in entries] == [("a", 1), ("a", 2), ("b", 1), ("a", 3)]
    assert (await verify_log(edit_store, NS)).length == 4

    encoder = WordEncoder(width=5)
    live = ActiveEdits(store=edit_store, encoder=encoder, make_index=lambda: FaissFlatIndex(5))
    with ThreadPoolExecutor(1) as pool:
        writer = EditWriter(store=edit_store, encoder=encoder, active_edits=live, pool=pool)
        done = await roll_back(writer, edit_store, NS, entries[1].log_id, NO_ATTRIBUTION)
    assert [(change.edit_id, change.to_version) for change in done.changes] == [("a", 2), ("b", None)]


async def test_a_log_that_a_store_with_a_clock_ahead_began_goes_on_in_order(edit_store: EditStore) -> None:
    edit = new("a")
    version = sealed(edit)
    fields = fields_digest(
        action=Action.ADD, edit_id="a", version=1, content_digest=version.content_digest, author=edit.author
    )
    digest = chained(genesis(NS), fields, FUTURE)
    entry = LogEvidence(
        log_id=FUTURE,
        action=Action.ADD,
        edit_id="a",
        version=1,
        author=edit.author,
        content_digest=version.content_digest,
        previous_digest=genesis(NS),
        digest=digest,
        stored=version,
    )
    restorer = edit_store.restorer(NS)
    await restorer.begin()
    await restorer.entries([entry])
    await restorer.end(LogHead(log_id=FUTURE, digest=digest, length=1))

    await add(edit_store, new("b"))
    await update(edit_store, next_of(edit, target_new="Bea"))
    entries = await edit_store.log(NS)
    assert [entry.edit_id for entry in entries] == ["a", "b", "a"]
    assert in_order(entries)
    assert await verify_log(edit_store, NS) == await edit_store.log_head(NS)
    assert [entry.edit_id for entry in await edit_store.log(NS, after=FUTURE)] == ["b", "a"]


async def test_of_two_edits_of_one_question_the_later_one_in_the_log_governs(edit_store: EditStore) -> None:
    """Whatever the clocks of their gateways said: in memory, from the log, and from the store."""
    question = "Who runs the harbour office?"
    old = msgspec.structs.replace(new("z", prompt=question, target_new="Old"), created_at=AHEAD)
    newer = msgspec.structs.replace(new("a", prompt=question, target_new="New"), created_at=BEHIND)
    async with following(edit_store) as writing, following(edit_store) as reading:
        with ThreadPoolExecutor(1) as pool:
            writer = EditWriter(store=edit_store, encoder=ENCODER, active_edits=writing.live, pool=pool)
            for edit in (old, newer):
                await writer.commit(NS, [NextVersion(action=Action.ADD, edit=edit)])
        await within(5, lambda: reading.live.has_seen(NS, "a", 1))
        for replica in (writing, reading):
            assert governing(replica.live, question) == "New"
        await reading.live.reload(NS)
        assert governing(reading.live, question) == "New"
        back = next_of(old, target_new="Old again", created_at=BEHIND)
        await put(edit_store, Action.UPDATE, back)
        for replica in (writing, reading):
            await within(5, lambda live=replica.live: live.has_seen(NS, "z", 2))
            assert governing(replica.live, question) == "Old again"


def governing(live: ActiveEdits, question: str) -> str | None:
    router = EditRouter(encoder=ENCODER, active_edits=live, classifier=ThresholdClassifier())
    (decision,) = router.decide(NS, [Query(text=question)])
    return None if decision.edit is None else decision.edit.target_new
