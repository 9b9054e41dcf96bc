"""The way of a write: encode, commit, take into force. In that order, so nothing is half done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

import msgspec
import numpy as np

from serac_gateway.domain.edits import ACTIVE_STATES, Edit, EditState, forms
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import NO_VECTORS, Action, Change, Commit, FormVectors, Receipt, StoredEdit

_SLICE_TEXTS = 8
"""Encoded at a time, some 15 ms: a request's decision waits for its turn on the same threads."""


class NextVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version to be made."""

    action: Action
    edit: Edit
    current: Edit | None = None
    """The version before it; None for an added edit."""
    vectors: FormVectors | None = None
    """Of its forms, where they have been made already."""


class EditWriter:
    """Makes versions durable and takes them into force in this process."""

    def __init__(
        self,
        *,
        store: EditStore,
        encoder: Encoder,
        active_edits: ActiveEdits,
        pool: Executor,
        threads: int = 1,
    ) -> None:
        """`threads`: on how many of the pool's threads one commit's texts are encoded at a time."""
        self._threads = threads
        self._store = store
        self._encoder = encoder
        self._live_edits = active_edits
        self._pool = pool

    @property
    def encoder_fingerprint(self) -> str:
        """Of the encoder in use."""
        return self._encoder.fingerprint

    async def commit(
        self,
        namespace: str,
        versions: Sequence[NextVersion],
        *,
        idempotency_key: str | None = None,
        request_fingerprint: str = "",
        expected_log_id: str | None = None,
    ) -> Receipt:
        """Make all of `versions` or none: encode what is new, commit, take into force.

        At most `records.MAX_CHANGES`, no edit twice. Raises as `EditStore.commit` does, or
        ModelUnavailableError.
        """
        vectors = await self.vectors(versions)
        commit = Commit(
            changes=tuple(
                Change(action=one.action, edit=one.edit, vectors=made)
                for one, made in zip(versions, vectors, strict=True)
            ),
            idempotency_key=idempotency_key,
            request_fingerprint=request_fingerprint,
            expected_log_id=expected_log_id,
        )
        # Shielded: a client that leaves must not part a commit from its effect in this process.
        return await asyncio.shield(asyncio.ensure_future(self._commit_and_apply(namespace, commit)))

    async def vectors(self, versions: Sequence[NextVersion]) -> list[FormVectors | None]:
        """For each version its vectors, or None where the stored ones are those of its forms."""
        made = [one for one in versions if one.vectors is None and _has_new_forms(one)]
        forms_N = [forms(one.edit) for one in made]
        texts = [text for texts in forms_N for text in texts]
        if not texts:
            return [one.vectors for one in versions]
        vectors_FD = await self._encoded(texts)
        vectors_N = iter(np.split(vectors_FD, np.cumsum([len(texts) for texts in forms_N])[:-1]))
        fingerprint = self._encoder.fingerprint
        return [
            FormVectors(fingerprint=fingerprint, vectors_FD=next(vectors_N))
            if one.vectors is None and _has_new_forms(one)
            else one.vectors
            for one in versions
        ]

    async def _encoded(self, texts: Sequence[str]) -> Vectors:
        loop = asyncio.get_running_loop()
        starts = iter(range(0, len(texts), _SLICE_TEXTS))
        made: dict[int, Vectors] = {}

        async def encode_in_turn() -> None:
            for start in starts:  # what others ask of the pool comes between two slices
                made[start] = await loop.run_in_executor(
                    self._pool, self._encoder.encode, texts[start : start + _SLICE_TEXTS]
                )

        await asyncio.gather(*(encode_in_turn() for _ in range(self._threads)))
        return np.concatenate([made[start] for start in sorted(made)])

    async def _commit_and_apply(self, namespace: str, commit: Commit) -> Receipt:
        receipt = await self._store.commit(namespace, commit)
        if receipt.replayed:
            # Whoever made that commit may have died before it took effect: make sure of it now.
            applied = [await self._store.stored(namespace, one.edit_id) for one in receipt.changes]
        else:
            applied = [await self._stored(change) for change in commit.changes]
        await self._live_edits.apply(namespace, applied)
        return receipt

    async def _stored(self, change: Change) -> StoredEdit:
        edit, vectors = change.edit, change.vectors
        if vectors is None and edit.state in ACTIVE_STATES:
            return await self._store.stored(edit.namespace, edit.id)
        return StoredEdit(edit=edit, vectors=vectors or NO_VECTORS)


def _has_new_forms(version: NextVersion) -> bool:
    if version.edit.state is EditState.PURGED:
        return False
    return version.current is None or forms(version.edit) != forms(version.current)
