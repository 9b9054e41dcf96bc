"""The way of a write: check, encode, commit, take into force. In that order, so nothing is half done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

import msgspec
import numpy as np

from serac_gateway.edits import (
    DECIDED_STATES,
    UNTOLD,
    Deed,
    Edit,
    EditDraft,
    EditPatch,
    EditState,
    copied,
    first_version,
    forms,
    patched,
    purged,
    restored,
    retired,
)
from serac_gateway.encoders.base import Encoder
from serac_gateway.errors import EditConflictError
from serac_gateway.live_edits import LiveEdits
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import NO_VECTORS, Action, Change, Commit, FormVectors, Receipt, StoredEdit
from serac_gateway.stores.refusals import purged_edit, stale_version


class NextVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version to be made."""

    action: Action
    edit: Edit
    current: Edit | None = None
    """The version before it; None for an added edit."""


class Editor:
    """Makes versions of edits. A returned edit is durable and in force in this process."""

    def __init__(self, *, store: EditStore, encoder: Encoder, live_edits: LiveEdits, pool: Executor) -> None:
        self._store = store
        self._encoder = encoder
        self._live_edits = live_edits
        self._pool = pool

    async def add(
        self,
        namespace: str,
        draft: EditDraft,
        *,
        idempotency_key: str | None = None,
        request_fingerprint: str = "",
    ) -> Edit:
        """Store a new edit.

        Raises:
            InvalidRequestError: The draft breaks a rule.
            EditConflictError: Its id exists, or the idempotency key was used with another fingerprint.
            StoreUnavailableError, ModelUnavailableError: Nothing may have been stored.
        """
        edit = first_version(draft, namespace=namespace)
        receipt = await self.commit(
            namespace,
            [NextVersion(action=Action.ADD, edit=edit)],
            idempotency_key=idempotency_key,
            request_fingerprint=request_fingerprint,
        )
        if receipt.replayed:
            (first,) = receipt.changes
            return await self._store.get(namespace, first.edit_id, version=first.version)
        return edit

    async def change(self, namespace: str, edit_id: str, patch: EditPatch, *, expected_version: int) -> Edit:
        """Store the next version of an edit, with the fields of `patch`.

        Raises:
            InvalidRequestError: The patch is empty or breaks a rule.
            EditNotFoundError: No such edit.
            EditPurgedError: It was purged.
            PreconditionFailedError: `expected_version` is not current.
        """
        current = await self._current(namespace, edit_id, expected_version)
        return await self._make(Action.UPDATE, patched(current, patch), current)

    async def retire(
        self, namespace: str, edit_id: str, deed: Deed = UNTOLD, *, expected_version: int
    ) -> Edit:
        """Store the next version of an edit in state `retired`. Raises as `change` does."""
        current = await self._current(namespace, edit_id, expected_version)
        return await self._make(Action.RETIRE, retired(current, deed), current)

    async def restore(
        self, namespace: str, edit_id: str, deed: Deed = UNTOLD, *, expected_version: int
    ) -> Edit:
        """Store the next version of a retired edit, live again.

        Raises:
            EditConflictError: It is not retired.
            EditNotFoundError, EditPurgedError, PreconditionFailedError: As for `change`.
        """
        current = await self._current(namespace, edit_id, expected_version)
        if current.state is not EditState.RETIRED:
            raise EditConflictError(
                f"edit {edit_id!r} is {current.state.value}; only a retired edit can be restored",
                field="id",
                details={"value": current.state.value},
            )
        return await self._make(Action.RESTORE, restored(current, deed), current)

    async def rollback(
        self, namespace: str, edit_id: str, version: int, deed: Deed = UNTOLD, *, expected_version: int
    ) -> Edit:
        """Store the next version of an edit as a copy of its `version`, content and state.

        Raises:
            EditNotFoundError: No such edit, or no such version of it.
            EditPurgedError, PreconditionFailedError: As for `change`.
        """
        current = await self._current(namespace, edit_id, expected_version)
        older = await self._store.get(namespace, edit_id, version=version)
        return await self._make(Action.ROLLBACK, copied(current, older, deed), current)

    async def purge(self, namespace: str, edit_id: str, deed: Deed, *, expected_version: int) -> Edit:
        """Delete the content of all versions of an edit for good, and return its tombstone.

        Raises as `change` does.
        """
        current = await self._current(namespace, edit_id, expected_version)
        return await self._make(Action.PURGE, purged(current, deed), current)

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
        vectors = await self._vectors(versions)
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

    async def _make(self, action: Action, edit: Edit, current: Edit) -> Edit:
        await self.commit(edit.namespace, [NextVersion(action=action, edit=edit, current=current)])
        return edit

    async def _current(self, namespace: str, edit_id: str, expected_version: int) -> Edit:
        current = await self._store.get(namespace, edit_id)
        if current.state is EditState.PURGED:
            raise purged_edit(edit_id)
        if current.version != expected_version:
            raise stale_version(edit_id, expected=expected_version, current=current.version)
        return current

    async def _vectors(self, versions: Sequence[NextVersion]) -> list[FormVectors | None]:
        """For each version its vectors, or None where the stored ones are those of its forms."""
        made = [one for one in versions if _has_new_forms(one)]
        forms_N = [forms(one.edit) for one in made]
        texts = [text for texts in forms_N for text in texts]
        if not texts:
            return [None] * len(versions)
        vectors_FD = await asyncio.get_running_loop().run_in_executor(self._pool, self._encoder.encode, texts)
        vectors_N = iter(np.split(vectors_FD, np.cumsum([len(texts) for texts in forms_N])[:-1]))
        fingerprint = self._encoder.fingerprint
        return [
            FormVectors(fingerprint=fingerprint, vectors_FD=next(vectors_N)) if _has_new_forms(one) else None
            for one in versions
        ]

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
        if vectors is None and edit.state in DECIDED_STATES:
            return await self._store.stored(edit.namespace, edit.id)
        return StoredEdit(edit=edit, vectors=vectors or NO_VECTORS)


def _has_new_forms(version: NextVersion) -> bool:
    if version.edit.state is EditState.PURGED:
        return False
    return version.current is None or forms(version.edit) != forms(version.current)
