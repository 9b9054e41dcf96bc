"""The one way by which edits are written: encode, check for conflicts, commit, put in force.

In that order, so that nothing is half done: an encoder that fails leaves nothing stored, and what is in force
is durable. `EditWriter.write` makes one version and follows the namespace's policy on conflicts;
`EditWriter.commit` makes several, whatever they contradict.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

import msgspec
import numpy as np

from serac_gateway.config.model import ConflictPolicy, GovernanceConfig, ModelsConfig
from serac_gateway.control_plane.approval import Approval, check_approved
from serac_gateway.control_plane.conflicts import Conflict, ConflictFinder, same_effect, to_supersede
from serac_gateway.control_plane.model_threads import time_limit
from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.control_plane.webhooks.events import Announce, announce_nothing, conflict_event
from serac_gateway.domain.edits import ACTIVE_STATES, Attribution, Edit, forms
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.errors import GatewayError, PreconditionFailedError
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.checked_records import damaged
from serac_gateway.stores.records import (
    NO_VECTORS,
    Change,
    Commit,
    FormVectors,
    Idempotency,
    Receipt,
    StoredEdit,
)

log = logging.getLogger(__name__)

_SLICE_TEXTS = 8
"""Texts encoded at a time, some 15 ms: a request's decision waits that long for the same threads."""
_TRIES = 3
_PAUSE_S = 0.5

_UNGOVERNED = GovernanceConfig()

_T = TypeVar("_T")


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A version that was committed, and the edits it contradicts."""

    edit: Edit
    conflicts: tuple[Conflict, ...] | None = ()
    """Edits that answered its question differently at the time; None: the search for them failed."""
    superseded: tuple[Edit, ...] = ()
    """Those of them that were retired in the same commit."""


class EditWriter:
    """Writes edits. What a method returns is durable, and in force in this process."""

    def __init__(
        self,
        *,
        store: EditStore,
        encoder: Encoder,
        active_edits: ActiveEdits,
        pool: Executor,
        threads: int = 1,
        conflicts: ConflictFinder | None = None,
        timeout_s: float = ModelsConfig().control_timeout_s,
        governance: GovernanceConfig = _UNGOVERNED,
        announce: Announce = announce_nothing,
    ) -> None:
        """`pool` encodes and searches for conflicts, for one commit on at most `threads` threads at a time.

        Without `conflicts`, `write` does not search for them. A step of work on the pool, with its wait for a
        thread, may take `timeout_s` seconds: some texts to encode, or the search.
        """
        self._store = store
        self._encoder = encoder
        self._active_edits = active_edits
        self._pool = pool
        self._threads = threads
        self._conflicts = conflicts
        self._timeout_s = timeout_s
        self._governance = governance
        self._announce = announce
        self._turns: dict[str, asyncio.Lock] = {}
        """By namespace: held from the search for conflicts until the commit is in force."""

    @property
    def encoder_fingerprint(self) -> str:
        """Of the encoder that makes all vectors here."""
        return self._encoder.fingerprint

    @property
    def encoder_width(self) -> int:
        """The width of its vectors."""
        return self._encoder.width

    def checks_conflicts_first(self, namespace: str) -> bool:
        """Whether conflicts decide what is committed to the namespace: then write one edit at a time."""
        return (
            self._conflicts is not None
            and self._conflicts.policy(namespace) is not ConflictPolicy.NEWEST_WINS
        )

    def expedited(self, namespace: str, author: str | None) -> Approval | None:
        """For what an admin writes without the agreement of others; None where none is demanded."""
        if not self._governance.approvals_of(namespace):
            return None
        return Approval(note=f"expedited by {author or 'an admin'}")

    async def write(
        self,
        namespace: str,
        version: NextVersion,
        *,
        idempotency: Idempotency | None = None,
        approval: Approval | None = None,
    ) -> Written:
        """Commit one version to `namespace`, and treat its conflicts as the policy of the namespace says.

        Where the newest edit wins, the search for conflicts runs beside the commit, and only reports. With
        any other policy the writes of this process to a namespace come one after the other; what other
        replicas write counts as soon as it is in force here.

        Raises:
            DamagedRecordError: The version is of another namespace.
            ApprovalNeededError: The namespace demands one, and `approval` is None.
            ContradictionError: It contradicts edits in force, and the namespace refuses that.
            ModelUnavailableError: The encoder failed or took too long, or with such a policy the classifier.
            Others as for `EditStore.commit`.
        """
        edit = version.edit
        _check_namespace_of(namespace, [version])
        check_approved(self._governance, namespace, approval)
        if self._conflicts is None or not _may_conflict(version):
            receipt = await self.commit(namespace, [version], idempotency=idempotency, approval=approval)
            return await self._written(namespace, edit, receipt)
        checks_first = self.checks_conflicts_first(namespace)
        if idempotency is not None and checks_first:
            # The outcome of the first such request stands, whatever has come to contradict it.
            replayed = await self._store.receipt(namespace, idempotency)
            if replayed is not None:
                return await self._written(namespace, edit, replayed)
        (vectors,) = await self._vectors([version])
        encoded = msgspec.structs.replace(version, vectors=vectors)
        if checks_first:
            # Shielded as a commit is: the next search must not begin before this write has taken effect.
            return await asyncio.shield(
                asyncio.ensure_future(
                    self._write_in_turn(namespace, encoded, self._conflicts, idempotency, approval)
                )
            )
        searching = asyncio.ensure_future(self._conflicts_or_none(namespace, encoded, self._conflicts))
        try:
            receipt = await self.commit(namespace, [encoded], idempotency=idempotency, approval=approval)
        except BaseException:
            searching.cancel()
            raise
        return await self._written(namespace, edit, receipt, conflicts=await searching)

    async def check_contradictions(self, namespace: str, version: NextVersion) -> None:
        """Return if `write` would not refuse `version` for what it contradicts; nothing is written.

        Raises:
            ContradictionError: It contradicts edits in force, and the namespace refuses that.
            ModelUnavailableError: Encoder or classifier failed or took too long.
        """
        finder = self._conflicts
        if finder is not None and finder.policy(namespace) is not ConflictPolicy.NEWEST_WINS:
            conflicts = await self._search(namespace, version, finder)
            to_supersede(finder.policy(namespace), version.edit, conflicts)

    async def commit(
        self,
        namespace: str,
        versions: Sequence[NextVersion],
        *,
        idempotency: Idempotency | None = None,
        expected_log_id: str | None = None,
        approval: Approval | None = None,
    ) -> Receipt:
        """Commit all of `versions` or none, without regard to conflicts, and put them in force.

        At most `records.MAX_CHANGES` versions, no edit twice.

        Raises:
            DamagedRecordError: A version is of another namespace.
            ApprovalNeededError: The namespace demands one, and `approval` is None.
            ModelUnavailableError: The encoder failed or took too long; nothing was stored.
            Others as for `EditStore.commit`.
        """
        _check_namespace_of(namespace, versions)
        check_approved(self._governance, namespace, approval)
        vectors = await self._vectors(versions)
        commit = Commit(
            changes=tuple(
                Change(action=version.action, edit=version.edit, vectors=made)
                for version, made in zip(versions, vectors, strict=True)
            ),
            idempotency=idempotency,
            expected_log_id=expected_log_id,
            approval=None if approval is None else approval.note,
            closes=None if approval is None or approval.closes is None else approval.closes.as_closing,
        )
        # Shielded: a client that leaves must not part a commit from its effect in this process.
        return await asyncio.shield(
            asyncio.ensure_future(self._commit_and_apply(namespace, commit, approval))
        )

    async def vectors(self, edits: Sequence[Edit]) -> list[FormVectors]:
        """The vectors of each edit's forms, encoded anew.

        Raises:
            ModelUnavailableError: The encoder failed.
        """
        forms_N = [forms(edit) for edit in edits]
        texts = [text for texts in forms_N for text in texts]
        if not texts:
            return []
        vectors_FD = await self._encoded(texts)
        vectors_N = np.split(vectors_FD, np.cumsum([len(texts) for texts in forms_N])[:-1])
        return [
            FormVectors(fingerprint=self._encoder.fingerprint, vectors_FD=vectors) for vectors in vectors_N
        ]

    async def _vectors(self, versions: Sequence[NextVersion]) -> list[FormVectors | None]:
        """For each version its vectors; None where the stored ones hold."""
        to_encode = [version.vectors is None and version.has_new_forms for version in versions]
        made = iter(await self.vectors([version.edit for version in itertools.compress(versions, to_encode)]))
        return [
            next(made) if encode else version.vectors
            for version, encode in zip(versions, to_encode, strict=True)
        ]

    async def _encoded(self, texts: Sequence[str]) -> Vectors:
        starts = iter(range(0, len(texts), _SLICE_TEXTS))
        made: dict[int, Vectors] = {}

        async def encode_slices() -> None:
            for start in starts:  # other work of the pool runs between two slices
                some = texts[start : start + _SLICE_TEXTS]
                made[start] = await self._on_pool("encoding the edit", partial(self._encoder.encode, some))

        await asyncio.gather(*(encode_slices() for _ in range(self._threads)))
        return np.concatenate([made[start] for start in sorted(made)])

    async def _write_in_turn(
        self,
        namespace: str,
        version: NextVersion,
        finder: ConflictFinder,
        idempotency: Idempotency | None,
        approval: Approval | None,
    ) -> Written:
        async with self._turns.setdefault(namespace, asyncio.Lock()):
            return await self._write_by_policy(namespace, version, finder, idempotency, approval)

    async def _write_by_policy(
        self,
        namespace: str,
        version: NextVersion,
        finder: ConflictFinder,
        idempotency: Idempotency | None,
        approval: Approval | None,
    ) -> Written:
        edit = version.edit
        attribution = Attribution(author=edit.author, reason=f"superseded by {edit.id}", ticket=edit.ticket)
        for attempt in itertools.count(1):
            conflicts = await self._search(namespace, version, finder)
            superseded = to_supersede(finder.policy(namespace), edit, conflicts)
            retiring = [NextVersion.retired(other, attribution) for other in superseded]
            try:
                receipt = await self.commit(
                    namespace, [version, *retiring], idempotency=idempotency, approval=approval
                )
            except PreconditionFailedError:
                if not superseded or attempt == _TRIES:
                    raise
                await asyncio.sleep(_PAUSE_S)  # another replica changed one of them: let that arrive
                continue
            return await self._written(
                namespace,
                edit,
                receipt,
                conflicts=tuple(conflicts),
                superseded=tuple(retired.edit for retired in retiring),
            )
        raise AssertionError("itertools.count ended")

    async def _conflicts_or_none(
        self, namespace: str, version: NextVersion, finder: ConflictFinder
    ) -> tuple[Conflict, ...] | None:
        try:
            return tuple(await self._search(namespace, version, finder))
        except GatewayError as error:  # the edit is stored all the same
            log.warning("the search for conflicts of edit %s failed: %s", version.edit.id, error.message)
            return None

    async def _search(self, namespace: str, version: NextVersion, finder: ConflictFinder) -> list[Conflict]:
        vectors_FD = None if version.vectors is None else version.vectors.vectors_FD
        find = partial(finder.find, namespace, version.edit, vectors_FD)
        return await self._on_pool("the search for conflicts", find)

    async def _on_pool(self, what: str, call: Callable[[], _T]) -> _T:
        async with time_limit(what, self._timeout_s, "the gateway is busy: try again later"):
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def _written(
        self,
        namespace: str,
        edit: Edit,
        receipt: Receipt,
        *,
        conflicts: tuple[Conflict, ...] | None = (),
        superseded: tuple[Edit, ...] = (),
    ) -> Written:
        if receipt.replayed:
            first = receipt.changes[0]
            edit = await self._store.get(namespace, first.edit_id, version=first.version)
            superseded = ()
        elif conflicts:
            self._announce(conflict_event(edit, [conflict.edit for conflict in conflicts], superseded))
        return Written(edit=edit, conflicts=conflicts, superseded=superseded)

    async def _commit_and_apply(self, namespace: str, commit: Commit, approval: Approval | None) -> Receipt:
        receipt = await self._store.commit(namespace, commit)
        if approval is not None and not receipt.replayed:
            approval.on_committed([change.edit.id for change in commit.changes])
        if receipt.replayed:
            # The process that made that commit may have died before it took effect: make sure of it now.
            applied = [await self._store.stored(namespace, change.edit_id) for change in receipt.changes]
        else:
            applied = [await self._stored(namespace, change) for change in commit.changes]
        log_ids = {(change.edit_id, change.version): change.log_id for change in receipt.changes}
        applied = [
            msgspec.structs.replace(stored, log_id=log_ids.get((stored.edit.id, stored.edit.version)))
            for stored in applied
        ]
        await self._active_edits.apply(namespace, applied)
        return receipt

    async def _stored(self, namespace: str, change: Change) -> StoredEdit:
        edit, vectors = change.edit, change.vectors
        if vectors is None and edit.state in ACTIVE_STATES:
            return await self._store.stored(namespace, edit.id)
        return StoredEdit(edit=edit, vectors=vectors or NO_VECTORS)


def _check_namespace_of(namespace: str, versions: Sequence[NextVersion]) -> None:
    """Return if all of `versions` are of the namespace that the caller may write to."""
    for version in versions:
        if version.edit.namespace != namespace:
            raise damaged(namespace, version.edit.id, f"it is of namespace {version.edit.namespace[:80]!r}")


def _may_conflict(version: NextVersion) -> bool:
    if version.edit.state not in ACTIVE_STATES:
        return False
    return version.current is None or not same_effect(version.edit, version.current)
