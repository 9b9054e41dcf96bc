"""Edits and commits in few words, for the tests of edit stores."""

from __future__ import annotations

import msgspec
import numpy as np

from serac_gateway.domain.edits import Edit, EditDraft, EditState, first_version
from serac_gateway.domain.vectors import Vectors
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import Action, Change, Commit, FormVectors, Idempotency, Receipt, StoredEdit

NS = "default"


def new(edit_id: str, *, namespace: str = NS, **fields: object) -> Edit:
    fields = {"prompt": f"Who runs {edit_id}?", "target_new": "Ann", **fields}
    return first_version(EditDraft(id=edit_id, **fields), namespace=namespace)


def next_of(edit: Edit, **fields: object) -> Edit:
    return msgspec.structs.replace(edit, version=edit.version + 1, **fields)


def unit_vectors(seed: int) -> Vectors:
    """Of an edit with two forms."""
    vectors_FD = np.random.default_rng(seed).standard_normal((2, 5), dtype=np.float32)
    unit_FD: Vectors = vectors_FD / np.linalg.norm(vectors_FD, axis=1, keepdims=True)
    return unit_FD


def commit_of(
    action: Action, edit: Edit, *, key: str | None = None, fingerprint: str = "", seed: int = 0
) -> Commit:
    vectors_FD = unit_vectors(seed)
    vectors = FormVectors(fingerprint=f"encoder {seed}", vectors_FD=vectors_FD)
    change = Change(action=action, edit=edit, vectors=None if action is Action.PURGE else vectors)
    idempotency = None if key is None else Idempotency(key=key, fingerprint=fingerprint)
    return Commit(changes=(change,), idempotency=idempotency)


def commit_of_all(*changes: tuple[Action, Edit]) -> Commit:
    """One commit of all of them."""
    return Commit(changes=tuple(commit_of(*change).changes[0] for change in changes))


async def add(store: EditStore, edit: Edit, **more: object) -> Receipt:
    return await store.commit(edit.namespace, commit_of(Action.ADD, edit, **more))


async def update(store: EditStore, edit: Edit, **more: object) -> Receipt:
    return await store.commit(edit.namespace, commit_of(Action.UPDATE, edit, **more))


async def snapshot(store: EditStore, namespace: str = NS) -> dict[str, StoredEdit]:
    snapshot_edits = [stored async for stored in store.snapshot(namespace)]
    by_id = {stored.edit.id: stored for stored in snapshot_edits}
    assert len(by_id) == len(snapshot_edits)
    return by_id


async def walk(
    store: EditStore, *, limit: int, state: EditState | None = None, namespace: str = NS
) -> list[Edit]:
    edits, cursor = [], None
    while True:
        page = await store.page(namespace, cursor=cursor, limit=limit, state=state)
        assert len(page.edits) <= limit
        edits += page.edits
        if page.next_cursor is None:
            return edits
        cursor = page.next_cursor
