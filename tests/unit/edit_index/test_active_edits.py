"""What is in force in this process follows the store, whatever the order of events."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from serac_gateway.domain.edits import (
    DecidedState,
    Edit,
    EditDraft,
    EditKind,
    EditPatch,
    first_version,
    forms,
    patched,
    retired,
)
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.base import Neighbour
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import Action, Change, Commit, FormVectors, StoredEdit
from serac_gateway.testing import WordEncoder

ENCODER = WordEncoder()


def edit(prompt: str = "Who runs Acme?", target: str = "Ada Example") -> Edit:
    return first_version(EditDraft(prompt=prompt, target_new=target), namespace="default")


def stored(edited: Edit, encoder: WordEncoder = ENCODER) -> StoredEdit:
    vectors = FormVectors(fingerprint=encoder.fingerprint, vectors_FD=encoder.encode(forms(edited)))
    return StoredEdit(edit=edited, vectors=vectors)


def added(edited: Edit) -> Commit:
    return Commit(changes=(Change(action=Action.ADD, edit=edited, vectors=stored(edited).vectors),))


def active_edits(store: InMemoryEditStore, encoder: WordEncoder = ENCODER) -> ActiveEdits:
    return ActiveEdits(store=store, encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width))


def nearest(live: ActiveEdits, text: str, encoder: WordEncoder = ENCODER) -> list[Edit]:
    (row,) = live.candidates("default", encoder.encode([text]), 8)
    return [candidate.edit for candidate in row]


async def test_loading_rebuilds_every_namespace_and_encodes_nothing() -> None:
    store, encoder = InMemoryEditStore(), WordEncoder()
    for namespace in ("default", "other"):
        for number in range(3):
            loaded = msgspec.structs.replace(edit(f"question {number}?"), namespace=namespace)
            await store.commit(namespace, added(loaded))
    seen: list[int] = []
    live = active_edits(store, encoder)
    assert await live.load(seen.append) == 6
    assert (live.count("default"), live.count("other"), seen[-1]) == (3, 3, 6)
    assert encoder.texts_encoded == 0
    assert nearest(live, "question 1?")[0].prompt == "question 1?"


async def test_vectors_of_another_encoder_are_made_anew_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, new_encoder = InMemoryEditStore(), WordEncoder(32, salt="new")
    await store.commit("default", added(edit()))
    live = active_edits(store, new_encoder)
    with caplog.at_level(logging.WARNING):
        await live.load()
    assert "another encoder" in caplog.text
    assert len(nearest(live, "who runs acme", new_encoder)) == 1


async def test_an_older_version_that_arrives_late_changes_nothing() -> None:
    live = active_edits(InMemoryEditStore())
    old = edit()
    new = patched(old, EditPatch(target_new="Bea Sample"))
    await live.apply("default", [stored(new)])
    await live.apply("default", [stored(old)])
    assert nearest(live, "who runs acme") == [new]


async def test_a_retired_edit_does_not_come_back_with_a_late_older_version() -> None:
    live = active_edits(InMemoryEditStore())
    first = edit()
    await live.apply("default", [stored(first)])
    await live.apply("default", [stored(retired(first))])
    await live.apply("default", [stored(first)])
    assert nearest(live, "who runs acme") == []
    assert live.count("default") == 0


async def test_several_versions_of_an_edit_in_one_batch_leave_the_last() -> None:
    live = active_edits(InMemoryEditStore())
    first = edit()
    two = patched(first, EditPatch(prompt="Who leads Acme?"))
    gone, kept = edit("Who runs Beta?"), edit("Who runs Gamma?")
    await live.apply("default", [stored(x) for x in (first, two, gone, kept, retired(gone))])
    assert live.count("default") == 2
    assert {each.id: each for each in nearest(live, "who")} == {two.id: two, kept.id: kept}


async def test_suppressions_have_an_index_of_their_own_in_which_no_fact_crowds_them_out() -> None:
    live = active_edits(InMemoryEditStore())
    hidden = msgspec.structs.replace(edit("What is hidden in Acme?", "No."), kind=EditKind.SUPPRESSION)
    facts = [stored(edit(f"What is hidden in Acme, box {number}?")) for number in range(50)]
    await live.apply("default", [*facts, stored(hidden)])
    vectors_BD = ENCODER.encode(["What is hidden in Acme, box 7?"])
    assert live.suppressions("default") == (hidden,)
    assert live.suppressions("default") is live.suppressions("default")
    assert [[row.edit for row in rows] for rows in live.suppression_candidates("default", vectors_BD, 8)] == [
        [hidden]
    ]
    assert live.suppression_candidates("other", vectors_BD, 8) == [[]]
    shadow = patched(hidden, EditPatch(state=DecidedState.SHADOW))
    await live.apply("default", [stored(shadow)])
    assert live.suppressions("default") == ()
    assert live.suppression_candidates("default", vectors_BD, 8) == [[]]
    restored_fact = patched(shadow, EditPatch(state=DecidedState.LIVE, kind=EditKind.FACT))
    await live.apply("default", [stored(restored_fact)])
    assert live.suppressions("default") == ()


class ForgetfulIndex(FaissFlatIndex):
    """An approximate index at its worst: it reads the lists in which nothing is."""

    def search(self, queries_BD: Vectors, k: int) -> list[list[Neighbour]]:
        return [[] for _ in queries_BD]


async def test_suppressions_are_searched_exactly_whatever_index_the_facts_have() -> None:
    live = ActiveEdits(
        store=InMemoryEditStore(), encoder=ENCODER, make_index=lambda: ForgetfulIndex(ENCODER.width)
    )
    hidden = msgspec.structs.replace(edit("What is hidden in Acme?", "No."), kind=EditKind.SUPPRESSION)
    await live.apply("default", [stored(edit()), stored(hidden)])
    vectors_BD = ENCODER.encode([hidden.prompt])
    assert live.candidates("default", vectors_BD, 8) == [[]]
    assert [[row.edit for row in rows] for rows in live.suppression_candidates("default", vectors_BD, 8)] == [
        [hidden]
    ]


async def test_a_namespace_is_loaded_once_its_own_edits_are() -> None:
    store = InMemoryEditStore()
    for namespace in ("a", "b"):
        await store.commit(namespace, added(msgspec.structs.replace(edit(), namespace=namespace)))
    live = active_edits(store)
    assert not live.is_loaded("none")
    seen: list[tuple[bool, ...]] = []
    live.on_changed = lambda _: seen.append(
        (live.is_loaded("a"), live.is_loaded("b"), live.is_loaded("none"))
    )
    await live.load()
    assert seen == [(False, False, True), (True, False, True), (True, True, True)]


async def test_namespaces_do_not_see_each_other() -> None:
    live = active_edits(InMemoryEditStore())
    await live.apply("other", [stored(edit())])
    assert nearest(live, "who runs acme") == []


async def test_the_form_named_is_the_one_that_lies_nearest() -> None:
    live = active_edits(InMemoryEditStore())
    version = first_version(
        EditDraft(prompt="Who runs Acme?", target_new="Ada", paraphrases=("chief of the company Acme",)),
        namespace="default",
        now=datetime.now(UTC),
    )
    await live.apply("default", [stored(version)])
    (row,) = live.candidates("default", ENCODER.encode(["company Acme chief"]), 8)
    assert row[0].form == "chief of the company Acme"
    assert np.isclose(
        row[0].similarity, ENCODER.encode([row[0].form])[0] @ ENCODER.encode(["company Acme chief"])[0]
    )
