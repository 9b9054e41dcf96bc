"""The edit store as a dictionary: what a store means, without a server. For tests; nothing is durable."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from typing_extensions import override

from serac_gateway.auth.key_store import ApiKeyStore
from serac_gateway.domain.edits import (
    ACTIVE_STATES,
    Edit,
    EditState,
    check_edit_id,
    check_namespace,
    record_json,
    tombstone,
)
from serac_gateway.errors import InvalidRequestError
from serac_gateway.stores.base import IDEMPOTENCY_TTL_S, EditStore
from serac_gateway.stores.checked_records import OnDamaged
from serac_gateway.stores.damage import Damage, NamespaceRepairer
from serac_gateway.stores.errors import (
    check_commit,
    check_replacements,
    id_purged,
    id_taken,
    key_reused,
    log_went_on,
    no_such_edit,
    no_such_version,
    not_empty,
    stale_version,
)
from serac_gateway.stores.log_chain import (
    LogEvidence,
    LogHead,
    VersionCount,
    VersionRecord,
    chained,
    empty_head,
    fields_digest,
    sealed,
)
from serac_gateway.stores.memory.outbox import InMemoryWebhookOutbox
from serac_gateway.stores.memory.proposals import InMemoryProposalStore
from serac_gateway.stores.memory.side_stores import (
    InMemoryApiKeyStore,
    InMemoryFeedbackStore,
    InMemoryReplicaRegistry,
    InMemoryTrafficStore,
    InMemoryVerificationStore,
)
from serac_gateway.stores.memory.trials import InMemoryTrialStore
from serac_gateway.stores.outbox import WebhookOutbox
from serac_gateway.stores.ports import (
    FeedbackStore,
    LogReader,
    NamespaceRestorer,
    ReplicaRegistry,
    TrafficStore,
    VerificationStore,
)
from serac_gateway.stores.proposals import ProposalStore
from serac_gateway.stores.records import (
    LOG_START,
    NO_VECTORS,
    Action,
    Change,
    Commit,
    Committed,
    FormVectors,
    Idempotency,
    Page,
    Receipt,
    StoredEdit,
    log_id_order,
)
from serac_gateway.stores.trials import TrialStore


@dataclass(kw_only=True)
class _StoredReceipt:
    """The receipt behind an idempotency key."""

    fingerprint: str
    receipt: Receipt
    until_s: float
    """By the monotonic clock."""


@dataclass
class _Namespace:
    """Everything of one namespace."""

    current: dict[str, StoredEdit] = field(default_factory=dict)
    versions: dict[str, list[VersionRecord]] = field(default_factory=dict)
    log: list[LogEvidence] = field(default_factory=list)
    receipts: dict[str, _StoredReceipt] = field(default_factory=dict)
    """By idempotency key."""


class InMemoryEditStore(EditStore):
    """Keeps edits until it is garbage collected. For any number of event loops, each in a thread of its own.

    No method suspends, and a lock keeps the commits of several threads apart, so every commit is atomic.
    """

    def __init__(self, *, idempotency_ttl_s: float = IDEMPOTENCY_TTL_S) -> None:
        self._idempotency_ttl_s = idempotency_ttl_s
        self._namespaces: dict[str, _Namespace] = {}
        self._api_keys = InMemoryApiKeyStore()
        self._traffic = InMemoryTrafficStore()
        self._feedback = InMemoryFeedbackStore()
        self._webhooks = InMemoryWebhookOutbox()
        self._trials = InMemoryTrialStore()
        self._verifications = InMemoryVerificationStore()
        self._committing = threading.RLock()
        self._proposals = InMemoryProposalStore(
            self._current_version, self._committing, idempotency_ttl_s=idempotency_ttl_s
        )
        self._replicas = InMemoryReplicaRegistry()
        self._readers: set[_InMemoryLogReader] = set()
        self._backup_secret = secrets.token_bytes(32)

    @override
    async def commit(self, namespace: str, commit: Commit) -> Receipt:
        check_commit(namespace, commit)
        with self._committing:
            receipt = self._commit(namespace, commit)
        if not receipt.replayed:
            for reader in list(self._readers):
                reader.wake()
        return receipt

    def _commit(self, namespace: str, commit: Commit) -> Receipt:
        held = self._namespaces.get(namespace, _Namespace())
        if commit.idempotency is not None:
            replayed = self._receipt(namespace, commit.idempotency)
            if replayed is not None:
                return replayed
        if commit.closes is not None:
            self._proposals.check_next(namespace, commit.closes.proposal_id, commit.closes.revision)
        for change in commit.changes:
            _refuse_unless_next(namespace, held, change)
        log_id = _head_of(namespace, held).log_id
        if commit.expected_log_id not in (None, log_id):
            raise log_went_on(expected=commit.expected_log_id or "", current=log_id)

        self._namespaces[namespace] = held
        made = tuple(_make(namespace, held, change, commit.approval) for change in commit.changes)
        receipt = Receipt(changes=made)
        if commit.closes is not None:
            self._proposals.close(namespace, commit.closes)
        for change in commit.changes:
            if change.action is Action.PURGE:
                self._proposals.forget(namespace, change.edit.id)
        if commit.idempotency is not None:
            held.receipts[commit.idempotency.key] = _StoredReceipt(
                fingerprint=commit.idempotency.fingerprint,
                receipt=receipt,
                until_s=time.monotonic() + self._idempotency_ttl_s,
            )
        return receipt

    @override
    async def receipt(self, namespace: str, idempotency: Idempotency) -> Receipt | None:
        return self._receipt(namespace, idempotency)

    def _receipt(self, namespace: str, idempotency: Idempotency) -> Receipt | None:
        held = self._namespaces.get(check_namespace(namespace))
        remembered = None if held is None else held.receipts.get(idempotency.key)
        if remembered is None or time.monotonic() >= remembered.until_s:
            return None
        if remembered.fingerprint != idempotency.fingerprint:
            raise key_reused(idempotency)
        return msgspec.structs.replace(remembered.receipt, replayed=True)

    @override
    async def get(self, namespace: str, edit_id: str, *, version: int | None = None) -> Edit:
        if version is None:
            return (await self.stored(namespace, edit_id)).edit
        versions = self._held(namespace).versions.get(check_edit_id(edit_id), [])
        if not 1 <= version <= len(versions):
            raise no_such_version(edit_id, version)
        return _edit_of(versions[version - 1])

    @override
    async def versions(self, namespace: str, edit_id: str) -> list[Edit]:
        await self.stored(namespace, edit_id)
        return [_edit_of(version) for version in self._held(namespace).versions[edit_id]]

    @override
    async def page(
        self,
        namespace: str,
        *,
        cursor: str | None = None,
        limit: int = 100,
        state: EditState | None = None,
        on_damaged: OnDamaged | None = None,
    ) -> Page:
        after = "" if cursor is None else check_edit_id(cursor)
        edits = [
            stored.edit
            for edit_id, stored in sorted(self._held(namespace).current.items())
            if edit_id > after and state in (None, stored.edit.state)
        ]
        return Page(edits=edits[:limit], next_cursor=edits[limit - 1].id if len(edits) > limit else None)

    @override
    async def snapshot(
        self, namespace: str, *, on_damaged: OnDamaged | None = None
    ) -> AsyncIterator[StoredEdit]:
        for stored in list(self._held(namespace).current.values()):
            if stored.edit.state in ACTIVE_STATES:
                yield stored

    @override
    async def stored(self, namespace: str, edit_id: str) -> StoredEdit:
        stored = self._held(namespace).current.get(check_edit_id(edit_id))
        if stored is None:
            raise no_such_edit(namespace, edit_id)
        return stored

    @override
    async def stored_many(
        self, namespace: str, edit_ids: Sequence[str], *, on_damaged: OnDamaged | None = None
    ) -> list[StoredEdit]:
        current = self._held(namespace).current
        return [current[edit_id] for edit_id in map(check_edit_id, edit_ids) if edit_id in current]

    @override
    async def replace_vectors(self, namespace: str, replacements: Sequence[StoredEdit]) -> int:
        check_replacements(namespace, replacements)
        current = self._held(namespace).current
        still = [
            replacement
            for replacement in replacements
            if replacement.edit.id in current
            and current[replacement.edit.id].edit.version == replacement.edit.version
        ]
        current.update(
            {
                replacement.edit.id: msgspec.structs.replace(
                    current[replacement.edit.id], vectors=replacement.vectors
                )
                for replacement in still
            }
        )
        return len(still)

    @override
    async def log_end(self, namespace: str) -> str:
        return (await self.log_head(namespace)).log_id

    @override
    async def log_head(self, namespace: str) -> LogHead:
        return _head_of(namespace, self._held(namespace))

    @override
    async def evidence(
        self, namespace: str, *, after: str = LOG_START, limit: int = 100
    ) -> list[LogEvidence]:
        start = log_id_order(after)
        held = self._held(namespace)
        return [
            msgspec.structs.replace(entry, stored=held.versions[entry.edit_id][entry.version - 1])
            for entry in held.log
            if log_id_order(entry.log_id) > start
        ][:limit]

    @override
    async def version_log_ids(self, namespace: str) -> AsyncIterator[Committed]:
        for entry in list(self._held(namespace).log):
            yield Committed(edit_id=entry.edit_id, version=entry.version, log_id=entry.log_id)

    @override
    async def version_counts(self, namespace: str) -> AsyncIterator[VersionCount]:
        for edit_id, versions in sorted(self._held(namespace).versions.items()):
            yield VersionCount(edit_id=edit_id, versions=len(versions))

    @override
    async def namespaces(self) -> list[str]:
        return sorted(self._namespaces)

    @override
    def log_reader(self) -> LogReader:
        reader = _InMemoryLogReader(self, self._readers)
        self._readers.add(reader)
        return reader

    @override
    def api_keys(self) -> ApiKeyStore:
        return self._api_keys

    @override
    def traffic(self) -> TrafficStore:
        return self._traffic

    @override
    def feedback(self) -> FeedbackStore:
        return self._feedback

    @override
    def trials(self) -> TrialStore:
        return self._trials

    @override
    def webhooks(self) -> WebhookOutbox:
        return self._webhooks

    @override
    def proposals(self) -> ProposalStore:
        return self._proposals

    @override
    def verifications(self) -> VerificationStore:
        return self._verifications

    @override
    def replicas(self) -> ReplicaRegistry:
        return self._replicas

    @override
    def restorer(self, namespace: str) -> NamespaceRestorer:
        return _InMemoryRestorer(self._namespaces, check_namespace(namespace))

    @override
    def repairer(self, namespace: str) -> NamespaceRepairer:
        check_namespace(namespace)
        return _NothingToRepair()

    @override
    async def backup_secret(self) -> bytes:
        return self._backup_secret

    @override
    async def ping(self) -> None:
        return

    @override
    async def close(self) -> None:
        return

    def _current_version(self, namespace: str, edit_id: str) -> int:
        """0: there is no such edit."""
        stored = self._held(namespace).current.get(edit_id)
        return 0 if stored is None else stored.edit.version

    def _held(self, namespace: str) -> _Namespace:
        return self._namespaces.get(check_namespace(namespace), _Namespace())


class _InMemoryLogReader(LogReader):
    """Woken by every commit, also by one made in another thread."""

    def __init__(self, store: InMemoryEditStore, readers: set[_InMemoryLogReader]) -> None:
        self._store = store
        self._readers = readers
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def wake(self) -> None:
        if self._waiting is not None:
            loop, event = self._waiting
            loop.call_soon_threadsafe(event.set)

    @override
    async def namespaces(self) -> list[str]:
        return await self._store.namespaces()

    @override
    async def heads(self, namespaces: Collection[str]) -> dict[str, LogHead]:
        return {namespace: await self._store.log_head(namespace) for namespace in namespaces}

    @override
    async def after(
        self, positions: Mapping[str, str], *, wait_s: float, limit: int
    ) -> dict[str, list[LogEvidence]]:
        self._waiting = asyncio.get_running_loop(), asyncio.Event()
        try:
            if not (entries := await self._entries_after(positions, limit)):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._waiting[1].wait(), wait_s)
                entries = await self._entries_after(positions, limit)
        finally:
            self._waiting = None
        return entries

    @override
    async def close(self) -> None:
        self._readers.discard(self)

    async def _entries_after(self, positions: Mapping[str, str], limit: int) -> dict[str, list[LogEvidence]]:
        pages = {
            namespace: await self._store.evidence(namespace, after=after, limit=limit)
            for namespace, after in positions.items()
        }
        return {namespace: page for namespace, page in pages.items() if page}


class _InMemoryRestorer(NamespaceRestorer):
    """Fills a namespace beside the others, and puts it among them when it is whole."""

    def __init__(self, namespaces: dict[str, _Namespace], namespace: str) -> None:
        self._namespaces = namespaces
        self._namespace = namespace
        self._new = _Namespace()

    @override
    async def check_unused(self) -> None:
        if self._namespace in self._namespaces:
            raise not_empty(self._namespace)

    @override
    async def begin(self) -> None:
        await self.check_unused()

    @override
    async def entries(self, entries: Sequence[LogEvidence]) -> None:
        for entry in entries:
            if entry.stored is None:
                raise InvalidRequestError(f"log entry {entry.log_id!r} of the backup has no record")
            self._new.log.append(msgspec.structs.replace(entry, stored=None))
            self._new.versions.setdefault(entry.edit_id, []).append(entry.stored)
            self._new.current[entry.edit_id] = StoredEdit(edit=_edit_of(entry.stored), vectors=NO_VECTORS)

    @override
    async def vectors(self, vectors: Mapping[str, FormVectors]) -> None:
        for edit_id, form_vectors in vectors.items():
            self._new.current[edit_id] = StoredEdit(
                edit=self._new.current[edit_id].edit, vectors=form_vectors
            )

    @override
    async def end(self, head: LogHead) -> None:
        self._namespaces[self._namespace] = self._new

    @override
    async def abandon(self) -> None:
        self._new = _Namespace()


class _NothingToRepair(NamespaceRepairer):
    """Nobody but this process can reach its memory."""

    @override
    async def damages(self) -> AsyncIterator[Damage]:
        nothing: tuple[Damage, ...] = ()
        for damage in nothing:
            yield damage

    @override
    async def mend(self, damage: Damage) -> bool:
        return False


def _refuse_unless_next(namespace: str, held: _Namespace, change: Change) -> None:
    """Return if the change makes its edit's next version.

    Raises:
        EditConflictError, EditNotFoundError, PreconditionFailedError: It does not.
    """
    edit = change.edit
    current = held.current.get(edit.id)
    if change.action is Action.ADD:
        if current is not None:
            raise (id_purged if current.edit.state is EditState.PURGED else id_taken)(edit.id)
    elif current is None:
        raise no_such_edit(namespace, edit.id)
    elif current.edit.version != edit.version - 1:
        raise stale_version(edit.id, expected=edit.version - 1, current=current.edit.version)


def _make(namespace: str, held: _Namespace, change: Change, approval: str | None) -> Committed:
    """Make a change that is known to be the next one, and append it to the log."""
    edit, head, version = change.edit, _head_of(namespace, held), sealed(change.edit)
    log_id = f"{log_id_order(head.log_id)[0] + 1}-0"
    fields = fields_digest(
        action=change.action,
        edit_id=edit.id,
        version=edit.version,
        content_digest=version.content_digest,
        author=edit.author,
        approval=approval,
    )
    held.log.append(
        LogEvidence(
            log_id=log_id,
            action=change.action,
            edit_id=edit.id,
            version=edit.version,
            author=edit.author,
            approval=approval,
            content_digest=version.content_digest,
            previous_digest=head.digest,
            digest=chained(head.digest, fields, log_id),
            stored=None,
        )
    )
    versions = held.versions.setdefault(edit.id, [])
    if change.action is Action.PURGE:
        versions[:] = [
            VersionRecord(salt=None, record=record_json(tombstone(_edit_of(older))).decode())
            for older in versions
        ]
    versions.append(version)
    held.current[edit.id] = StoredEdit(edit=edit, vectors=_vectors(held, change))
    return Committed(edit_id=edit.id, version=edit.version, log_id=log_id)


def _vectors(held: _Namespace, change: Change) -> FormVectors:
    if change.action is Action.PURGE:
        return NO_VECTORS
    return change.vectors or held.current[change.edit.id].vectors


def _head_of(namespace: str, held: _Namespace) -> LogHead:
    """Where the log ends."""
    if not held.log:
        return empty_head(namespace)
    return LogHead(log_id=held.log[-1].log_id, digest=held.log[-1].digest, length=len(held.log))


def _edit_of(version: VersionRecord) -> Edit:
    """The edit in the record."""
    return msgspec.json.decode(version.record, type=Edit)
