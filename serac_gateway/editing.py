"""The way of a write: check, encode, commit, take into force. In that order, so nothing is half done."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from serac_gateway.edits import Edit, EditDraft, EditPatch, first_version, forms, patched, retired
from serac_gateway.encoders.base import Encoder
from serac_gateway.errors import PreconditionFailedError
from serac_gateway.live_edits import LiveEdits
from serac_gateway.stores.base import Action, Commit, EditStore, FormVectors, StoredEdit


class Editor:
    """Adds, changes and retires edits. A returned edit is durable and in force in this process."""

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
        return await self._commit(
            Action.ADD, edit, idempotency_key=idempotency_key, request_fingerprint=request_fingerprint
        )

    async def change(self, namespace: str, edit_id: str, patch: EditPatch, *, expected_version: int) -> Edit:
        """Store the next version of an edit, with the fields of `patch`.

        Raises:
            InvalidRequestError: The patch is empty or breaks a rule.
            EditNotFoundError: No such edit.
            PreconditionFailedError: `expected_version` is not current.
        """
        current = await self._current(namespace, edit_id, expected_version)
        return await self._commit(Action.UPDATE, patched(current, patch))

    async def retire(self, namespace: str, edit_id: str, *, expected_version: int) -> Edit:
        """Store the next version of an edit in state `retired`.

        Raises:
            EditNotFoundError: No such edit.
            PreconditionFailedError: `expected_version` is not current.
        """
        current = await self._current(namespace, edit_id, expected_version)
        return await self._commit(Action.RETIRE, retired(current))

    async def _current(self, namespace: str, edit_id: str, expected_version: int) -> Edit:
        current = await self._store.get(namespace, edit_id)
        if current.version != expected_version:
            raise PreconditionFailedError(
                f"edit {edit_id!r} is at version {current.version}, not {expected_version}; read it again and"
                " repeat the change with its new ETag",
                field="if-match",
                details={"value": expected_version, "current": current.version},
            )
        return current

    async def _commit(
        self,
        action: Action,
        edit: Edit,
        *,
        idempotency_key: str | None = None,
        request_fingerprint: str = "",
    ) -> Edit:
        loop = asyncio.get_running_loop()
        vectors_FD = await loop.run_in_executor(self._pool, self._encoder.encode, forms(edit))
        stored = StoredEdit(
            edit=edit, vectors=FormVectors(fingerprint=self._encoder.fingerprint, vectors_FD=vectors_FD)
        )
        commit = Commit(
            action=action,
            stored=stored,
            idempotency_key=idempotency_key,
            request_fingerprint=request_fingerprint,
        )
        # Shielded: a client that leaves must not part a commit from its effect in this process.
        return await asyncio.shield(asyncio.ensure_future(self._commit_and_apply(commit)))

    async def _commit_and_apply(self, commit: Commit) -> Edit:
        edit = commit.stored.edit
        receipt = await self._store.commit(edit.namespace, commit)
        if receipt.replayed:
            return await self._store.get(edit.namespace, receipt.edit_id, version=receipt.version)
        await self._live_edits.apply(edit.namespace, [commit.stored])
        return edit
