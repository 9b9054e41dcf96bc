"""The ports beside the edit store: what a store keeps besides edits, and how its log is read and restored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from typing import Self

import msgspec

from serac_gateway.domain.audiences import NO_LABELS, Labels
from serac_gateway.domain.edits import AwareDatetime
from serac_gateway.domain.feedback import Feedback
from serac_gateway.domain.queries import Query
from serac_gateway.stores.log_chain import LogEvidence, LogHead
from serac_gateway.stores.records import LOG_START, FormVectors


class FeedbackStore(ABC):
    """Keeps the latest reports of each namespace, for all replicas.

    Task-safe. Every method raises StoreUnavailableError when the server cannot be reached, and
    InvalidRequestError for a namespace that breaks the rules.
    """

    @abstractmethod
    async def add(self, namespace: str, feedback: Feedback, *, max_reports: int) -> None:
        """Keep a report, and forget the oldest ones beyond `max_reports`."""

    @abstractmethod
    def all(self, namespace: str) -> AsyncIterator[Feedback]:
        """Every report that is kept, oldest first."""

    @abstractmethod
    async def clear(self, namespace: str) -> int:
        """Delete the namespace's reports, and return how many there were."""


class LogReader(ABC):
    """Waits for entries on connections of its own, because waiting occupies one.

    For one task at a time. Every method raises StoreUnavailableError when the server cannot be reached.
    """

    @abstractmethod
    async def namespaces(self) -> list[str]:
        """Every namespace that has a log, or is about to get one, in no order."""

    @abstractmethod
    async def heads(self, namespaces: Collection[str]) -> dict[str, LogHead]:
        """Where the log of each ends, as stored beside it; for one without a log, an empty head.

        Namespaces whose head is damaged are left out.
        """

    @abstractmethod
    async def after(
        self, positions: Mapping[str, str], *, wait_s: float, limit: int
    ) -> dict[str, list[LogEvidence]]:
        """For each namespace the entries after its log_id, oldest first, at most `limit`, without records.

        Waits until there is one, at most `wait_s`. Namespaces without any are left out.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release the connections. Idempotent."""


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway."""

    id: str
    """New with every start."""
    name: str
    """For people: host and process."""
    started_at: datetime


class AppliedLog(msgspec.Struct, frozen=True, kw_only=True):
    """How far a gateway has applied a namespace's log."""

    log_id: str
    length: int
    """Number of entries up to there."""


NOTHING_APPLIED = AppliedLog(log_id=LOG_START, length=0)


class ReplicaRegistry(ABC):
    """The live gateways of one store. Every method raises StoreUnavailableError when the server fails."""

    @abstractmethod
    async def announce(self, replica: Replica, applied: Mapping[str, LogHead], *, ttl_s: float) -> bool:
        """Keep the gateway live for `ttl_s`, and note how far it is in these namespaces.

        Returns whether it was live; if not, its positions in other namespaces are forgotten.
        """

    @abstractmethod
    async def withdraw(self, replica_id: str) -> None:
        """Remove a gateway that ends, so that no call waits for it."""

    @abstractmethod
    async def live(self) -> dict[str, Replica]:
        """The live gateways by id."""

    @abstractmethod
    async def applied(self, namespace: str) -> dict[str, AppliedLog]:
        """How far each live gateway is in one namespace, by id."""


class NamespaceRestorer(ABC):
    """Fills one namespace. For one task; call `begin`, then the others in the order of the log, then `end`.

    It checks little of what it is given: see control_plane/restore.py. Every method raises
    StoreUnavailableError when the server cannot be reached or refuses: begin again.
    """

    @abstractmethod
    async def check_unused(self) -> None:
        """Return if the namespace has no edits and never had any. Changes nothing.

        Raises:
            EditConflictError: It has.
        """

    @abstractmethod
    async def begin(self) -> None:
        """Remove what an earlier restore left half done.

        Raises:
            EditConflictError: The namespace has edits.
        """

    @abstractmethod
    async def entries(self, entries: Sequence[LogEvidence]) -> None:
        """Write the next log entries with their versions, each of which is the current one for now.

        Raises:
            InvalidRequestError: An entry has no record, or one that is no edit.
        """

    @abstractmethod
    async def vectors(self, vectors: Mapping[str, FormVectors]) -> None:
        """Write the vectors of edits, by id; what was written for one before is replaced."""

    @abstractmethod
    async def end(self, head: LogHead) -> None:
        """Make the namespace whole."""

    @abstractmethod
    async def abandon(self) -> None:
        """Remove what was written. Not after `end`."""


class RecordedQuery(Query, frozen=True, kw_only=True):
    """A query with the labels of its request, by name; a record of before there were any has none."""

    labels: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, query: Query, labels: Labels = NO_LABELS) -> Self:
        """`query` of a request with `labels`."""
        return cls(**msgspec.structs.asdict(query), labels=tuple(sorted(labels.items())))


class TrafficStore(ABC):
    """Keeps the latest queries of each namespace, for all replicas.

    Task-safe. Every method raises StoreUnavailableError when the server cannot be reached, and
    InvalidRequestError for a namespace that breaks the rules.
    """

    @abstractmethod
    async def add(
        self, namespace: str, queries: Sequence[RecordedQuery], *, max_queries: int, ttl_s: int
    ) -> None:
        """Record `queries`, oldest first, and forget what is older than `ttl_s` or beyond `max_queries`."""

    @abstractmethod
    async def recent(self, namespace: str, *, max_queries: int, ttl_s: int) -> list[RecordedQuery]:
        """At most `max_queries`, newest first, none older than `ttl_s`."""

    @abstractmethod
    async def forget(self, namespace: str, *, ttl_s: int) -> None:
        """Delete what is older than `ttl_s`."""

    @abstractmethod
    async def clear(self, namespace: str) -> int:
        """Delete the record of the namespace, and return how many queries it had."""


class ProbeOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one query that an edit should answer."""

    probe: str
    """The text that was sent: "prompt" or "paraphrases[2]"."""
    passed: bool
    failure: str | None = None
    """Why it did not pass, in a few words: "another edit governs", "below threshold", …"""
    route: str
    governed_by: str | None = None
    """Id of the edit that governed."""
    scope_probability: float | None = None


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an edit took effect when its own questions were sent."""

    edit_id: str
    edit_version: int
    """The version that was verified; the current one may be newer."""
    at: AwareDatetime
    passed: bool
    """Whether all probes did."""
    probes: list[ProbeOutcome]


class VerificationStore(ABC):
    """Keeps one verification an edit, the last.

    Task-safe. Every method raises StoreUnavailableError when the server cannot be reached, and
    InvalidRequestError for a namespace or an id that breaks the rules.
    """

    @abstractmethod
    async def put(self, namespace: str, verification: Verification) -> None:
        """Remember it in place of the one before."""

    @abstractmethod
    async def get(self, namespace: str, edit_id: str) -> Verification | None:
        """The last one; None: the edit was never verified."""
