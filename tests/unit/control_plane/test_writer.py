"""A write is checked, encoded, committed and taken into force; or nothing of it happens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import (
    Attribution,
    DecidedState,
    Edit,
    EditDraft,
    EditPatch,
    EditState,
    first_version,
    forms,
)
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.errors import (
    DamagedRecordError,
    EditConflictError,
    EditPurgedError,
    InvalidRequestError,
    ModelUnavailableError,
    PreconditionFailedError,
    StoreUnavailableError,
)
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import Action, Commit, Idempotency, Receipt
from serac_gateway.testing import WordEncoder

DRAFT = EditDraft(prompt="Who runs Acme?", target_new="Ada Example")


class LosingStore(InMemoryEditStore):
    """Commits, and then loses the reply: what a broken connection does."""

    lose_replies = False
    held: asyncio.Event | None = None
    """If set: commits are done, but their replies wait for it."""

    async def commit(self, namespace: str, commit: Commit) -> Receipt:
        receipt = await super().commit(namespace, commit)
        if self.held is not None:
            await self.held.wait()
        if self.lose_replies:
            raise StoreUnavailableError("the reply was lost")
        return receipt


class Setup:
    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.store, self.encoder = LosingStore(), WordEncoder()
        self.live = ActiveEdits(
            store=self.store, encoder=self.encoder, make_index=lambda: FaissFlatIndex(self.encoder.width)
        )
        self.writer = EditWriter(store=self.store, encoder=self.encoder, active_edits=self.live, pool=pool)

    async def add(self, draft: EditDraft = DRAFT, *, idempotency: Idempotency | None = None) -> Edit:
        written = await self.writer.write(
            "default", NextVersion.added("default", draft), idempotency=idempotency
        )
        return written.edit

    async def write(self, version: NextVersion) -> Edit:
        return (await self.writer.write("default", version)).edit


@pytest.fixture
def setup() -> Iterator[Setup]:
    with ThreadPoolExecutor(2) as pool:
        yield Setup(pool)


async def test_an_added_edit_is_stored_and_in_force_when_the_call_returns(setup: Setup) -> None:
    edit = await setup.add()
    assert await setup.store.get("default", edit.id) == edit
    assert setup.live.count("default") == 1


async def test_an_encoder_that_fails_leaves_nothing_stored(setup: Setup) -> None:
    setup.encoder.failure = ModelUnavailableError("out of order")
    with pytest.raises(ModelUnavailableError):
        await setup.add()
    assert await setup.store.namespaces() == []
    assert setup.live.count("default") == 0


async def test_a_draft_that_breaks_a_rule_is_refused_before_anything_is_encoded(setup: Setup) -> None:
    with pytest.raises(InvalidRequestError):
        await setup.add(EditDraft(prompt=" ", target_new="x"))
    assert setup.encoder.texts_encoded == 0


async def test_a_stale_version_changes_nothing(setup: Setup) -> None:
    edit = await setup.add()
    newer = await setup.write(NextVersion.changed(edit, EditPatch(target_new="Bea")))
    with pytest.raises(PreconditionFailedError) as caught:
        await setup.write(NextVersion.retired(edit))
    assert caught.value.details["current"] == 2
    assert await setup.store.get("default", edit.id) == newer


async def test_a_retry_after_a_lost_reply_gives_the_first_edit_and_puts_it_in_force(setup: Setup) -> None:
    setup.store.lose_replies = True
    key = Idempotency(key="k", fingerprint="f")
    with pytest.raises(StoreUnavailableError):
        await setup.add(idempotency=key)
    assert setup.live.count("default") == 0
    setup.store.lose_replies = False
    edit = await setup.add(idempotency=key)
    assert [edit.id for edit in (await setup.store.page("default")).edits] == [edit.id]
    assert setup.live.count("default") == 1


async def test_an_edit_whose_caller_left_in_mid_commit_is_in_force_all_the_same(setup: Setup) -> None:
    setup.store.held = asyncio.Event()
    adding = asyncio.ensure_future(setup.add())
    while not await setup.store.namespaces():
        await asyncio.sleep(0.001)
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert setup.live.count("default") == 0
    setup.store.held.set()
    while setup.live.count("default") == 0:
        await asyncio.sleep(0.001)


async def test_restoring_an_edit_encodes_nothing_and_puts_it_in_force_again(setup: Setup) -> None:
    edit = await setup.add()
    retired = await setup.write(NextVersion.retired(edit, Attribution(author="Ann", reason="wrong")))
    assert setup.live.count("default") == 0
    encoded = setup.encoder.texts_encoded
    again = await setup.write(NextVersion.restored(retired, Attribution(author="Bea")))
    assert (again.state, again.author, again.reason) == (EditState.LIVE, "Bea", None)
    assert setup.encoder.texts_encoded == encoded
    assert setup.live.current("default", edit.id) == again
    assert (await setup.store.stored("default", edit.id)).vectors.vectors_FD.any()


async def test_only_a_retired_edit_can_be_restored(setup: Setup) -> None:
    edit = await setup.add()
    with pytest.raises(EditConflictError, match="only a retired edit"):
        NextVersion.restored(edit)


async def test_a_rollback_copies_content_and_state_of_an_older_version(setup: Setup) -> None:
    edit = await setup.add()
    patch = EditPatch(prompt="Who leads Acme?", target_new="Bea")
    retired = await setup.write(NextVersion.retired(await setup.write(NextVersion.changed(edit, patch))))
    back = await setup.write(NextVersion.rolled_back(retired, edit, Attribution(author="Cy")))
    assert (back.prompt, back.target_new, back.version, back.state) == (
        DRAFT.prompt, DRAFT.target_new, 4, EditState.LIVE,
    )  # fmt: skip
    assert (back.author, back.created_at > edit.created_at) == ("Cy", True)
    (candidates,) = setup.live.candidates("default", setup.encoder.encode([DRAFT.prompt]), 1)
    assert (candidates[0].edit, candidates[0].similarity > 0.999) == (back, True)


async def test_a_purged_edit_leaves_a_tombstone_that_nothing_can_change(setup: Setup) -> None:
    edit = await setup.add()
    gone = await setup.write(NextVersion.purged(edit, Attribution(reason="asked to")))
    assert (gone.state, gone.prompt, gone.reason) == (EditState.PURGED, "", "asked to")
    assert setup.live.count("default") == 0
    for make in (
        lambda: NextVersion.changed(gone, EditPatch(target_new="Bea")),
        lambda: NextVersion.restored(gone),
        lambda: NextVersion.rolled_back(gone, edit),
        lambda: NextVersion.retired(gone),
        lambda: NextVersion.purged(gone),
    ):
        with pytest.raises(EditPurgedError):
            make()


async def test_a_change_made_from_a_version_that_was_purged_meanwhile_is_refused(setup: Setup) -> None:
    edit = await setup.add()
    await setup.write(NextVersion.purged(edit))
    with pytest.raises(PreconditionFailedError):
        await setup.write(NextVersion.changed(edit, EditPatch(target_new="Bea")))
    assert setup.live.count("default") == 0


async def test_a_retired_edit_goes_live_by_a_restore_only(setup: Setup) -> None:
    retired = await setup.write(NextVersion.retired(await setup.add()))
    with pytest.raises(EditConflictError, match="restore it first"):
        NextVersion.changed(retired, EditPatch(state=DecidedState.LIVE))


async def test_many_edits_are_encoded_in_slices_on_the_threads_there_are() -> None:
    class Watching(WordEncoder):
        """Notes how many texts come at a time, and waits until two threads are here."""

        def __init__(self) -> None:
            super().__init__()
            self.slices: list[int] = []
            self.together = threading.Barrier(2, timeout=10)

        def encode(self, texts: Sequence[str]) -> Vectors:
            self.slices.append(len(texts))
            self.together.wait()
            return super().encode(texts)

    encoder, store = Watching(), InMemoryEditStore()
    live = ActiveEdits(store=store, encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width))
    with ThreadPoolExecutor(2) as pool:
        writer = EditWriter(store=store, encoder=encoder, active_edits=live, pool=pool, threads=2)
        drafts = [EditDraft(prompt=f"Who runs {n}?", target_new=f"Ada {n}") for n in range(8)]
        edits = [first_version(draft, namespace="default") for draft in drafts]
        await writer.commit("default", [NextVersion(action=Action.ADD, edit=edit) for edit in edits])
    assert encoder.slices == [8, 8]
    for edit in edits:
        stored = await store.stored("default", edit.id)
        assert (stored.vectors.vectors_FD == WordEncoder().encode(forms(edit))).all()


async def test_a_version_of_another_namespace_is_refused_and_nothing_is_encoded(setup: Setup) -> None:
    """The namespace is the caller's: that of a record may be a stranger's word."""
    edit = await setup.add()
    encoded = setup.encoder.texts_encoded
    foreign = NextVersion.changed(edit, EditPatch(prompt="Who runs Umbra?"))
    with pytest.raises(DamagedRecordError, match="it is of namespace 'default'"):
        await setup.writer.write("umbra", foreign)
    with pytest.raises(DamagedRecordError):
        await setup.writer.commit("umbra", [foreign])
    assert setup.encoder.texts_encoded == encoded
    assert await setup.store.get("default", edit.id) == edit
    assert setup.live.count("umbra") == 0
