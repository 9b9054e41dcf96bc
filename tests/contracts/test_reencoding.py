"""Vectors that another encoder made are made anew, beside writes, whatever breaks off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from serac_gateway.control_plane.integrity import StoreCheck, StoreReport
from serac_gateway.control_plane.reencode import ReencodeProgress, reencode
from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import Attribution, Edit, EditDraft, EditPatch, EditState
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.errors import ModelUnavailableError, StoreUnavailableError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import FormVectors, StoredEdit
from serac_gateway.testing import WordEncoder
from tests.contracts.edit_store_calls import NS, add, new
from tests.contracts.served_stores import ServedStore

OLD, NEW = "old", "new"


class Gateway:
    """What edits, and what is in force, with one encoder."""

    def __init__(self, store: EditStore, salt: str, pool: ThreadPoolExecutor) -> None:
        self.store, self.encoder = store, WordEncoder(salt=salt)
        self.live = ActiveEdits(
            store=store, encoder=self.encoder, make_index=lambda: FaissFlatIndex(self.encoder.width)
        )
        self.writer = EditWriter(store=store, encoder=self.encoder, active_edits=self.live, pool=pool)

    async def filled(self, count: int) -> None:
        for number in range(count):
            draft = EditDraft(id=f"e{number:03}", prompt=f"Who runs place {number}?", target_new="Ann")
            await self.writer.write(NS, NextVersion.added(NS, draft))

    async def reencoded(self) -> list[ReencodeProgress]:
        return [progress async for progress in reencode(self.writer, self.store, NS)]

    async def report(self) -> StoreReport:
        await self.live.reload(NS)
        return await StoreCheck(store=self.store, active_edits=self.live).run(NS)


MakeGateway = Callable[[EditStore, str], Gateway]


@pytest.fixture
async def gateway() -> AsyncIterator[MakeGateway]:
    with ThreadPoolExecutor(1) as pool:
        yield lambda store, salt: Gateway(store, salt, pool)


async def test_every_edit_gets_vectors_of_the_new_encoder_and_the_log_stays(
    edit_store: EditStore, gateway: MakeGateway
) -> None:
    old, new_one = gateway(edit_store, OLD), gateway(edit_store, NEW)
    await old.filled(6)
    first, second, third = [await edit_store.get(NS, f"e00{number}") for number in range(3)]
    await old.writer.write(NS, NextVersion.retired(first))
    await old.writer.write(NS, NextVersion.purged(second, Attribution(reason="a request")))
    await new_one.writer.write(NS, NextVersion.changed(third, EditPatch(prompt="Who was here?")))
    head = await edit_store.log_head(NS)

    (progress,) = await new_one.reencoded()
    assert progress == ReencodeProgress(
        encoder=new_one.encoder.fingerprint, edits=6, reencoded=4, complete=True
    )
    report = await new_one.report()
    assert report.sound
    assert report.encoders == {new_one.encoder.fingerprint: 5}
    assert await edit_store.log_head(NS) == head
    new_one.encoder.texts_encoded = 0
    await new_one.live.reload(NS)
    assert new_one.encoder.texts_encoded == 0
    assert [progress.reencoded for progress in await new_one.reencoded()] == [0]


async def test_gateways_of_both_encoders_find_the_same_edits_meanwhile(
    edit_store: EditStore, gateway: MakeGateway
) -> None:
    old, new_one = gateway(edit_store, OLD), gateway(edit_store, NEW)
    await old.filled(5)
    for _ in range(2):  # before and after
        for replica in (old, new_one):
            await replica.live.reload(NS)
            for number in range(5):
                query_BD = replica.encoder.encode([f"Who runs place {number}?"])
                ((nearest,),) = replica.live.candidates(NS, query_BD, 1)
                assert (nearest.edit.id, nearest.similarity) == (f"e{number:03}", pytest.approx(1))
        await new_one.reencoded()


async def test_only_the_version_that_was_encoded_gets_the_vectors(
    edit_store: EditStore, gateway: MakeGateway
) -> None:
    first, second, gone = new("a"), new("b"), new("never")
    await add(edit_store, first)
    await add(edit_store, second)
    writer = gateway(edit_store, NEW).writer
    vectors = FormVectors(fingerprint="mine", vectors_FD=WordEncoder().encode(["x", "y"]))
    await writer.write(NS, NextVersion.changed(second, EditPatch(target_new="Bob")))
    count = await edit_store.replace_vectors(
        NS, [StoredEdit(edit=edit, vectors=vectors) for edit in (first, second, gone)]
    )
    assert count == 1
    assert (await edit_store.stored(NS, "a")).vectors.fingerprint == "mine"
    assert (await edit_store.stored(NS, "b")).vectors.fingerprint == writer.encoder_fingerprint
    assert [stored.edit.id for stored in await edit_store.stored_many(NS, ["never"])] == []


@pytest.mark.parametrize("wrong", [{"namespace": "other"}, {"state": EditState.PURGED}])
async def test_vectors_for_what_can_have_none_are_the_callers_mistake(
    edit_store: EditStore, wrong: dict[str, str]
) -> None:
    edit: Edit = msgspec.structs.replace(new("a"), **wrong)
    vectors = FormVectors(fingerprint="mine", vectors_FD=WordEncoder().encode(["x", "y"]))
    with pytest.raises(ValueError, match="'a' was purged, or is not of namespace 'default'"):
        await edit_store.replace_vectors(NS, [StoredEdit(edit=edit, vectors=vectors)])


async def test_a_run_that_broke_off_goes_on_where_it_was(served: ServedStore, gateway: MakeGateway) -> None:
    old, new_one = gateway(served.store, OLD), gateway(served.store, NEW)
    await old.filled(230)
    running = reencode(new_one.writer, served.store, NS)
    progress = await anext(running)
    assert (progress.edits, progress.reencoded, progress.complete) == (200, 200, False)
    served.kill()
    with pytest.raises(StoreUnavailableError):
        await anext(running)
    await served.wait_until_back()

    new_one.encoder.texts_encoded = 0
    assert [(progress.edits, progress.reencoded) for progress in await new_one.reencoded()] == [
        (200, 0),
        (230, 30),
    ]
    assert new_one.encoder.texts_encoded == 30 * 2
    report = await new_one.report()
    assert (report.sound, report.encoders) == (True, {new_one.encoder.fingerprint: 230})


async def test_an_encoder_that_fails_in_the_middle_leaves_what_was_there(
    edit_store: EditStore, gateway: MakeGateway
) -> None:
    old, new_one = gateway(edit_store, OLD), gateway(edit_store, NEW)
    await old.filled(3)
    new_one.encoder.failure = ModelUnavailableError("out of memory")
    with pytest.raises(ModelUnavailableError):
        await new_one.reencoded()
    assert (await old.report()).encoders == {old.encoder.fingerprint: 3}
