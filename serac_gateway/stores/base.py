"""The port to the edit store, which holds the truth about edits; all indexes are derived from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence

from serac_gateway.auth.key_store import ApiKeyStore
from serac_gateway.domain.edits import Edit, EditState
from serac_gateway.stores.checked_records import OnDamaged
from serac_gateway.stores.damage import NamespaceRepairer
from serac_gateway.stores.log_chain import LogEvidence, LogHead, VersionCount, log_entry
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
    Commit,
    Committed,
    Idempotency,
    LogEntry,
    Page,
    Receipt,
    StoredEdit,
)
from serac_gateway.stores.trials import TrialStore

IDEMPOTENCY_TTL_S = 86_400
"""Default of how long a store keeps the receipt behind an idempotency key."""


class EditStore(ABC):
    """Current edits, all their versions, their vectors and a log, by namespace.

    Async and task-safe: one store serves all tasks of a process. Every method raises StoreUnavailableError
    when the server cannot be reached or refuses; a commit that raised it may or may not have happened (retry
    it with an idempotency key). A commit is never cut in half: if its caller is cancelled, it still runs to
    its end. Every method raises InvalidRequestError for a namespace, edit id, cursor or
    log id that breaks the rules of domain/edits.py, before the server is reached.

    No method trusts what is stored: an edit that is read is of the namespace, the id and the version that it
    was read under and keeps the rules of domain/edits.py, or the method raises DamagedRecordError.
    """

    @abstractmethod
    async def commit(self, namespace: str, commit: Commit) -> Receipt:
        """Make the changes durable and append them to the log: all of them or none.

        A purge also replaces every older version of its edit by its tombstone, and deletes every proposal
        that concerns the edit, reasons included. `Commit.closes` closes its proposal in the same step.

        Raises:
            ValueError: The commit is not well formed: no or too many changes, an edit twice, another
                namespace's edit, an added one whose version is not 1 or that has no vectors.
            EditConflictError: An added edit's id exists (also as a retired or purged one).
            IdempotencyKeyReusedError: The idempotency key was used with another fingerprint.
            EditNotFoundError: There is no edit of that id to change.
            PreconditionFailedError: The current version is not the new one - 1, or the log has gone on, or
                the proposal that it closes.
            ProposalNotFoundError: There is no such proposal.
        """

    @abstractmethod
    async def receipt(self, namespace: str, idempotency: Idempotency) -> Receipt | None:
        """The receipt of the commit that used the key, as `commit` would replay it; None: none did.

        Raises:
            IdempotencyKeyReusedError: The key was used with another fingerprint.
        """

    @abstractmethod
    async def get(self, namespace: str, edit_id: str, *, version: int | None = None) -> Edit:
        """The current version, or `version`.

        A retired edit is returned, in state `retired`; of a purged one every version is a tombstone, in state
        `purged` and without content.

        Raises:
            EditNotFoundError: No such edit, or no such version of it.
        """

    @abstractmethod
    async def versions(self, namespace: str, edit_id: str) -> list[Edit]:
        """All versions, oldest first; tombstones if the edit was purged.

        Raises:
            EditNotFoundError: No such edit.
        """

    @abstractmethod
    async def page(
        self,
        namespace: str,
        *,
        cursor: str | None = None,
        limit: int = 100,
        state: EditState | None = None,
        on_damaged: OnDamaged | None = None,
    ) -> Page:
        """At most `limit` (1 or more) current edits by their ids: for generated ones, in order of creation.

        With `state`, only those in it; a page may then be short, or empty, and yet not the last.
        An edit that exists for the whole walk is listed once, whatever others write meanwhile. Damaged
        records are left out of the page and given to `on_damaged`; without it, the first one ends the call.

        Raises:
            DamagedRecordError: A record is damaged, and there is no `on_damaged`.
        """

    @abstractmethod
    def snapshot(self, namespace: str, *, on_damaged: OnDamaged | None = None) -> AsyncIterator[StoredEdit]:
        """Every current edit in one of `ACTIVE_STATES`, with its vectors, in no order.

        For the rebuild of an index. Not a point in time: read `log_end` before, then follow the log from
        there. An edit whose state changes meanwhile may come twice. `on_damaged` as for `page`.
        """

    @abstractmethod
    async def stored(self, namespace: str, edit_id: str) -> StoredEdit:
        """The current version, whatever its state, with its vectors.

        Raises:
            EditNotFoundError: No such edit.
        """

    @abstractmethod
    async def stored_many(
        self, namespace: str, edit_ids: Sequence[str], *, on_damaged: OnDamaged | None = None
    ) -> list[StoredEdit]:
        """As `stored`, for several ids in one exchange; those of which there is no edit are left out.

        `on_damaged` as for `page`.
        """

    @abstractmethod
    async def replace_vectors(self, namespace: str, replacements: Sequence[StoredEdit]) -> int:
        """Set the vectors of those edits whose current version is still the one given, and count them.

        All in one step, and durable when it returns; it makes no version and no log entry.

        Raises:
            ValueError: An edit is of another namespace, or was purged.
        """

    @abstractmethod
    async def log_end(self, namespace: str) -> str:
        """The log_id of the last entry; `LOG_START` for an empty log."""

    @abstractmethod
    async def log_head(self, namespace: str) -> LogHead:
        """How long the log is and the digest it ends with, as stored beside it; for none, an empty head."""

    @abstractmethod
    async def evidence(
        self, namespace: str, *, after: str = LOG_START, limit: int = 100
    ) -> list[LogEvidence]:
        """Entries after `after`, oldest first, each as it is stored and with the record it speaks of.

        For verification: nothing is checked, and what is missing is None or empty.
        """

    @abstractmethod
    def version_log_ids(self, namespace: str) -> AsyncIterator[Committed]:
        """Which version each entry of the log made, oldest first; entries that name none are left out."""

    @abstractmethod
    def version_counts(self, namespace: str) -> AsyncIterator[VersionCount]:
        """How many version records each edit has, by id; for verification."""

    async def log(self, namespace: str, *, after: str = LOG_START, limit: int = 100) -> list[LogEntry]:
        """Entries after `after`, oldest first.

        Raises:
            StoreUnavailableError: An entry is damaged, or has no record.
        """
        return [log_entry(entry) for entry in await self.evidence(namespace, after=after, limit=limit)]

    @abstractmethod
    async def namespaces(self) -> list[str]:
        """All namespaces that ever got a commit, sorted."""

    @abstractmethod
    def log_reader(self) -> LogReader:
        """What waits for new log entries. The caller closes it, before this store."""

    @abstractmethod
    def api_keys(self) -> ApiKeyStore:
        """The API keys, which lie beside the edits. Usable for as long as this store is."""

    @abstractmethod
    def replicas(self) -> ReplicaRegistry:
        """The registry of the gateways that share this store. Usable for as long as this store is."""

    @abstractmethod
    def restorer(self, namespace: str) -> NamespaceRestorer:
        """What fills an empty namespace from a backup. Usable for as long as this store is."""

    @abstractmethod
    def repairer(self, namespace: str) -> NamespaceRepairer:
        """What finds and mends damage of a namespace. Usable for as long as this store is."""

    @abstractmethod
    def traffic(self) -> TrafficStore:
        """The record of recent queries. Usable for as long as this store is."""

    @abstractmethod
    def feedback(self) -> FeedbackStore:
        """Reports on requests. Usable for as long as this store is."""

    @abstractmethod
    def proposals(self) -> ProposalStore:
        """The changes that wait for agreement. Usable for as long as this store is."""

    @abstractmethod
    def trials(self) -> TrialStore:
        """The records of canaries. Usable for as long as this store is."""

    @abstractmethod
    def verifications(self) -> VerificationStore:
        """The last verification of each edit. Usable for as long as this store is."""

    @abstractmethod
    def webhooks(self) -> WebhookOutbox:
        """The events that wait for the receivers of webhooks. Usable for as long as this store is."""

    @abstractmethod
    async def backup_secret(self) -> bytes:
        """A random secret of the store, the same for every gateway on it; made when it is first read."""

    @property
    def has_pending_purge(self) -> bool:
        """Whether something that was purged may still lie in a file of a server that this store started."""
        return False

    @abstractmethod
    async def ping(self) -> None:
        """Return if the store answers."""

    @abstractmethod
    async def close(self) -> None:
        """Release connections (and stop an embedded server that this store started). Idempotent."""
