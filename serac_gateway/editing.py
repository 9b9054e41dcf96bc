"""The way of a write: check, encode, commit, take into force. In that order, so nothing is half done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np

from serac_gateway.edits import Edit, EditDraft, EditPatch, EditState, first_version, forms, patched, retired
from serac_gateway.encoders.base import Encoder
from serac_gateway.errors import (
    EditConflictError,
    GatewayError,
    InvalidRequestError,
    ModelUnavailableError,
    PreconditionFailedError,
)
from serac_gateway.live_edits import LiveEdits
from serac_gateway.stores.base import Action, Commit, EditStore, FormVectors, StoredEdit

_CONCURRENT_COMMITS = 16
"""Of one batch. A store that syncs every commit to disk takes several into one sync."""


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

    async def add_many(self, namespace: str, drafts: Sequence[EditDraft]) -> list[Edit | GatewayError]:
        """Store new edits: encoded in one batch, committed side by side, taken into force together.

        Each draft has an outcome of its own, in order: its edit, or the error that `add` would have raised. A
        draft whose id exists with the very same content has that edit for its outcome, so that an import can
        be repeated.
        """
        outcomes: list[Edit | GatewayError] = [_first_version_or_error(namespace, draft) for draft in drafts]
        edits = [outcome for outcome in outcomes if isinstance(outcome, Edit)]
        try:
            prepared = iter(await self._encoded(edits))
        except ModelUnavailableError as error:
            return [error if isinstance(outcome, Edit) else outcome for outcome in outcomes]
        return await asyncio.shield(
            asyncio.ensure_future(
                self._commit_many(
                    namespace, [next(prepared) if isinstance(one, Edit) else one for one in outcomes]
                )
            )
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

    async def _encoded(self, edits: Sequence[Edit]) -> list[StoredEdit]:
        if not edits:
            return []
        forms_N = [forms(edit) for edit in edits]
        texts = [text for texts in forms_N for text in texts]
        vectors_FD = await asyncio.get_running_loop().run_in_executor(self._pool, self._encoder.encode, texts)
        vectors_N = np.split(vectors_FD, np.cumsum([len(texts) for texts in forms_N])[:-1])
        return [
            StoredEdit(
                edit=edit, vectors=FormVectors(fingerprint=self._encoder.fingerprint, vectors_FD=vectors)
            )
            for edit, vectors in zip(edits, vectors_N, strict=True)
        ]

    async def _commit_many(
        self, namespace: str, prepared: Sequence[StoredEdit | GatewayError]
    ) -> list[Edit | GatewayError]:
        outcomes: list[Edit | GatewayError] = [
            one if isinstance(one, GatewayError) else one.edit for one in prepared
        ]
        positions_of: dict[str, list[int]] = {}
        for position, one in enumerate(prepared):
            if isinstance(one, StoredEdit):
                positions_of.setdefault(one.edit.id, []).append(position)
        slots = asyncio.Semaphore(_CONCURRENT_COMMITS)
        committed: list[StoredEdit] = []

        async def commit_in_turn(positions: Sequence[int]) -> None:
            """Drafts of one id are committed one after the other: the first one wins."""
            for position in positions:
                stored = prepared[position]
                assert isinstance(stored, StoredEdit)
                async with slots:
                    try:
                        await self._store.commit(namespace, Commit(action=Action.ADD, stored=stored))
                        committed.append(stored)
                    except EditConflictError as error:
                        outcomes[position] = await self._same_edit(stored.edit) or error
                    except GatewayError as error:
                        outcomes[position] = error

        await asyncio.gather(*map(commit_in_turn, positions_of.values()))
        await self._live_edits.apply(namespace, committed)
        return outcomes

    async def _same_edit(self, edit: Edit) -> Edit | None:
        """The current edit of that id, if it is live and says the same."""
        try:
            current = await self._store.get(edit.namespace, edit.id)
        except GatewayError:
            return None
        same = all(getattr(current, name) == getattr(edit, name) for name in EditPatch.__struct_fields__)
        return current if same and current.state is EditState.LIVE else None

    async def _commit(
        self,
        action: Action,
        edit: Edit,
        *,
        idempotency_key: str | None = None,
        request_fingerprint: str = "",
    ) -> Edit:
        (stored,) = await self._encoded([edit])
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
            # Whoever made that commit may have died before it took effect: make sure of it now.
            await self._live_edits.apply(
                edit.namespace, [await self._store.stored(edit.namespace, receipt.edit_id)]
            )
            return await self._store.get(edit.namespace, receipt.edit_id, version=receipt.version)
        await self._live_edits.apply(edit.namespace, [commit.stored])
        return edit


def _first_version_or_error(namespace: str, draft: EditDraft) -> Edit | GatewayError:
    try:
        return first_version(draft, namespace=namespace)
    except InvalidRequestError as error:
        return error
