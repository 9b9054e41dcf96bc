"""What editors do to edits, and what becomes of those that contradict each other."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from functools import partial

import msgspec

from serac_gateway.config.model import ConflictPolicy
from serac_gateway.control_plane.conflicts import Conflict, ConflictFinder, same_effect, to_supersede
from serac_gateway.control_plane.writer import EditWriter, NextVersion
from serac_gateway.domain.edits import (
    ACTIVE_STATES,
    NO_ATTRIBUTION,
    Attribution,
    Edit,
    EditDraft,
    EditPatch,
    EditState,
    copied,
    first_version,
    patched,
    purged,
    restored,
    retired,
)
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.errors import EditConflictError, GatewayError, PreconditionFailedError
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.errors import purged_edit, stale_version
from serac_gateway.stores.records import Action, FormVectors, Receipt

log = logging.getLogger(__name__)

_TRIES = 3
_PAUSE_S = 0.5


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A version that was made, and what it contradicts."""

    edit: Edit
    conflicts: tuple[Conflict, ...] | None = ()
    """Edits that answered its question differently when it came; None: they could not be looked for."""
    superseded: tuple[Edit, ...] = ()
    """Those of them that were retired in the same commit."""


class Editor:
    """Makes versions of edits. A returned edit is durable and in force in this process."""

    def __init__(
        self,
        *,
        store: EditStore,
        encoder: Encoder,
        active_edits: ActiveEdits,
        pool: Executor,
        threads: int = 1,
        conflicts: ConflictFinder | None = None,
    ) -> None:
        """Encodes, and looks for conflicts, on `pool`, a commit on up to so many of its threads at a time.

        Without `conflicts` none are looked for.
        """
        self._conflicts = conflicts
        self._settling: dict[str, asyncio.Lock] = {}
        self._store = store
        self._pool = pool
        self._committer = EditWriter(
            store=store, encoder=encoder, active_edits=active_edits, pool=pool, threads=threads
        )

    async def add(
        self,
        namespace: str,
        draft: EditDraft,
        *,
        idempotency_key: str | None = None,
        request_fingerprint: str = "",
    ) -> Written:
        """Store a new edit.

        Raises:
            InvalidRequestError: The draft breaks a rule.
            EditConflictError: Its id exists, or the idempotency key was used with another fingerprint.
            ContradictionError: It contradicts edits in force, and the namespace refuses that.
            StoreUnavailableError, ModelUnavailableError: Nothing may have been stored.
        """
        return await self.write(
            NextVersion(action=Action.ADD, edit=first_version(draft, namespace=namespace)),
            idempotency_key=idempotency_key,
            request_fingerprint=request_fingerprint,
        )

    async def change(
        self, namespace: str, edit_id: str, patch: EditPatch, *, expected_version: int
    ) -> Written:
        """Store the next version of an edit, with the fields of `patch`.

        Raises:
            InvalidRequestError: The patch is empty or breaks a rule.
            EditNotFoundError: No such edit.
            EditPurgedError: It was purged.
            EditConflictError: The patch sets the state of a retired edit.
            ContradictionError: It would contradict edits in force, and the namespace refuses that.
            PreconditionFailedError: `expected_version` is not current.
        """
        current = await self._current(namespace, edit_id, expected_version)
        if current.state is EditState.RETIRED and patch.state is not msgspec.UNSET:
            raise EditConflictError(
                f"edit {edit_id!r} is retired, so its state cannot be set to {patch.state.value!r}; restore"
                " it first",
                field="state",
                details={"value": patch.state.value},
            )
        return await self.write(
            NextVersion(action=Action.UPDATE, edit=patched(current, patch), current=current)
        )

    async def retire(
        self,
        namespace: str,
        edit_id: str,
        attribution: Attribution = NO_ATTRIBUTION,
        *,
        expected_version: int,
    ) -> Edit:
        """Store the next version of an edit in state `retired`. Raises as `change` does."""
        current = await self._current(namespace, edit_id, expected_version)
        return await self._make(Action.RETIRE, retired(current, attribution), current)

    async def restore(
        self,
        namespace: str,
        edit_id: str,
        attribution: Attribution = NO_ATTRIBUTION,
        *,
        expected_version: int,
    ) -> Written:
        """Store the next version of a retired edit, live again.

        Raises:
            EditConflictError: It is not retired.
            ContradictionError: As for `change`.
            EditNotFoundError, EditPurgedError, PreconditionFailedError: As for `change`.
        """
        current = await self._current(namespace, edit_id, expected_version)
        if current.state is not EditState.RETIRED:
            raise EditConflictError(
                f"edit {edit_id!r} is {current.state.value}; only a retired edit can be restored",
                field="id",
                details={"value": current.state.value},
            )
        version = NextVersion(action=Action.RESTORE, edit=restored(current, attribution), current=current)
        return await self.write(version)

    async def rollback(
        self,
        namespace: str,
        edit_id: str,
        version: int,
        attribution: Attribution = NO_ATTRIBUTION,
        *,
        expected_version: int,
    ) -> Written:
        """Store the next version of an edit as a copy of its `version`, content and state.

        Raises:
            ContradictionError: As for `change`.
            EditNotFoundError: No such edit, or no such version of it.
            EditPurgedError, PreconditionFailedError: As for `change`.
        """
        current = await self._current(namespace, edit_id, expected_version)
        older = await self._store.get(namespace, edit_id, version=version)
        copy = copied(current, older, attribution)
        return await self.write(NextVersion(action=Action.ROLLBACK, edit=copy, current=current))

    async def purge(
        self, namespace: str, edit_id: str, attribution: Attribution, *, expected_version: int
    ) -> Edit:
        """Delete the content of all versions of an edit for good, and return its tombstone.

        Raises as `change` does.
        """
        current = await self._current(namespace, edit_id, expected_version)
        return await self._make(Action.PURGE, purged(current, attribution), current)

    def looks_before_commit(self, namespace: str) -> bool:
        """Whether a conflict in the namespace decides what is committed: then write one by one."""
        return (
            self._conflicts is not None
            and self._conflicts.policy(namespace) is not ConflictPolicy.NEWEST_WINS
        )

    async def write(
        self, version: NextVersion, *, idempotency_key: str | None = None, request_fingerprint: str = ""
    ) -> Written:
        """Make a version, and deal with conflicts as its namespace demands.

        Where the newest edit wins, conflicts are looked for while the commit is under way, and only told.
        Else one write of this process comes after the other; what other replicas wrote counts as soon as it
        is in force here.

        Raises as `commit` does, or ContradictionError.
        """
        edit = version.edit
        if self._conflicts is None or not _may_conflict(version):
            receipt = await self.commit(
                edit.namespace,
                [version],
                idempotency_key=idempotency_key,
                request_fingerprint=request_fingerprint,
            )
            return await self._written(edit, receipt)
        if idempotency_key is not None and self.looks_before_commit(edit.namespace):
            # What the first such request led to stands, whatever contradicts it since.
            replayed = await self._store.receipt(
                edit.namespace, idempotency_key=idempotency_key, request_fingerprint=request_fingerprint
            )
            if replayed is not None:
                return await self._written(edit, replayed)
        (vectors,) = await self._committer.vectors([version])
        known = msgspec.structs.replace(version, vectors=vectors)
        commit = partial(
            self.commit,
            edit.namespace,
            idempotency_key=idempotency_key,
            request_fingerprint=request_fingerprint,
        )
        if self.looks_before_commit(edit.namespace):
            # Shielded as a commit is: the next one must not look before this one has taken effect.
            return await asyncio.shield(
                asyncio.ensure_future(self._settled_in_turn(known, self._conflicts, commit))
            )
        looking = asyncio.ensure_future(self._told_conflicts(known, self._conflicts))
        try:
            receipt = await commit([known])
        except BaseException:
            looking.cancel()
            raise
        return await self._written(edit, receipt, conflicts=await looking)

    async def _settled_in_turn(
        self,
        version: NextVersion,
        finder: ConflictFinder,
        commit: Callable[[Sequence[NextVersion]], Awaitable[Receipt]],
    ) -> Written:
        async with self._settling.setdefault(version.edit.namespace, asyncio.Lock()):
            return await self._settled(version, finder, commit)

    async def _settled(
        self,
        version: NextVersion,
        finder: ConflictFinder,
        commit: Callable[[Sequence[NextVersion]], Awaitable[Receipt]],
    ) -> Written:
        edit = version.edit
        for attempt in itertools.count(1):
            conflicts = await self._found(version, finder)
            superseded = to_supersede(finder.policy(edit.namespace), edit, conflicts)
            attribution = Attribution(author=edit.author, reason=f"superseded by {edit.id}")
            retiring = [
                NextVersion(action=Action.RETIRE, edit=retired(other, attribution), current=other)
                for other in superseded
            ]
            try:
                receipt = await commit([version, *retiring])
            except PreconditionFailedError:
                if not superseded or attempt == _TRIES:
                    raise
                await asyncio.sleep(_PAUSE_S)  # another replica changed one of them: let that arrive
                continue
            return await self._written(
                edit, receipt, conflicts=tuple(conflicts), superseded=tuple(one.edit for one in retiring)
            )
        raise AssertionError("itertools.count ended")

    async def _told_conflicts(
        self, version: NextVersion, finder: ConflictFinder
    ) -> tuple[Conflict, ...] | None:
        try:
            return tuple(await self._found(version, finder))
        except GatewayError as error:  # the edit is stored all the same
            log.warning("conflicts of edit %s could not be looked for: %s", version.edit.id, error.message)
            return None

    async def _found(self, version: NextVersion, finder: ConflictFinder) -> list[Conflict]:
        vectors_FD = None if version.vectors is None else version.vectors.vectors_FD
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, finder.find, version.edit, vectors_FD
        )

    async def _written(
        self,
        edit: Edit,
        receipt: Receipt,
        *,
        conflicts: tuple[Conflict, ...] | None = (),
        superseded: tuple[Edit, ...] = (),
    ) -> Written:
        if receipt.replayed:
            first = receipt.changes[0]
            edit = await self._store.get(edit.namespace, first.edit_id, version=first.version)
            superseded = ()
        return Written(edit=edit, conflicts=conflicts, superseded=superseded)

    async def commit(
        self,
        namespace: str,
        versions: Sequence[NextVersion],
        *,
        idempotency_key: str | None = None,
        request_fingerprint: str = "",
        expected_log_id: str | None = None,
    ) -> Receipt:
        """Make all of `versions` or none, whatever they contradict. See `EditWriter.commit`."""
        return await self._committer.commit(
            namespace,
            versions,
            idempotency_key=idempotency_key,
            request_fingerprint=request_fingerprint,
            expected_log_id=expected_log_id,
        )

    @property
    def encoder_fingerprint(self) -> str:
        """Of the encoder that makes all vectors here."""
        return self._committer.encoder_fingerprint

    async def vectors(self, edits: Sequence[Edit]) -> list[FormVectors]:
        """The vectors of each edit's forms, made anew.

        Raises:
            ModelUnavailableError: The encoder failed.
        """
        made = await self._committer.vectors([NextVersion(action=Action.ADD, edit=edit) for edit in edits])
        return [one for one in made if one is not None]

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


def _may_conflict(version: NextVersion) -> bool:
    if version.edit.state not in ACTIVE_STATES:
        return False
    return version.current is None or not same_effect(version.edit, version.current)
