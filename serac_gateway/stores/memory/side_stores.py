"""The stores beside the edits, in memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime

from typing_extensions import override

from serac_gateway.auth.api_keys import StoredApiKey, check_key_id
from serac_gateway.auth.key_store import ApiKeyStore, key_id_taken, oldest_first, with_times
from serac_gateway.domain.edits import check_edit_id, check_namespace
from serac_gateway.domain.feedback import Feedback
from serac_gateway.stores.log_chain import LogHead
from serac_gateway.stores.ports import (
    NOTHING_APPLIED,
    AppliedLog,
    FeedbackStore,
    RecordedQuery,
    Replica,
    ReplicaRegistry,
    TrafficStore,
    Verification,
    VerificationStore,
)


class InMemoryApiKeyStore(ApiKeyStore):
    """Keeps keys until it is garbage collected."""

    def __init__(self) -> None:
        self._keys: dict[str, StoredApiKey] = {}
        self._last_used: dict[str, datetime] = {}

    @override
    async def add(self, stored: StoredApiKey) -> None:
        key_id = check_key_id(stored.key.id)
        if self._keys.setdefault(key_id, stored) != stored:
            raise key_id_taken(key_id)

    @override
    async def get(self, key_id: str) -> StoredApiKey | None:
        return self._keys.get(check_key_id(key_id))

    @override
    async def all(self) -> list[StoredApiKey]:
        return oldest_first(
            with_times(stored, last_used_at=self._last_used.get(key_id))
            for key_id, stored in self._keys.items()
        )

    @override
    async def revoke(self, key_id: str, at: datetime) -> StoredApiKey | None:
        stored = self._keys.get(check_key_id(key_id))
        if stored is not None and stored.key.revoked_at is None:
            stored = self._keys[key_id] = with_times(stored, revoked_at=at)
        return stored

    @override
    async def note_use(self, key_id: str, at: datetime) -> None:
        self._last_used[check_key_id(key_id)] = at


class InMemoryFeedbackStore(FeedbackStore):
    """Keeps them until it is garbage collected."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[Feedback]] = {}

    @override
    async def add(self, namespace: str, feedback: Feedback, *, max_reports: int) -> None:
        kept = self._kept.setdefault(check_namespace(namespace), deque())
        kept.append(feedback)
        while len(kept) > max_reports:
            kept.popleft()

    @override
    async def all(self, namespace: str) -> AsyncIterator[Feedback]:
        for feedback in tuple(self._kept.get(check_namespace(namespace), ())):
            yield feedback

    @override
    async def clear(self, namespace: str) -> int:
        return len(self._kept.pop(check_namespace(namespace), ()))


class InMemoryReplicaRegistry(ReplicaRegistry):
    """Knows the gateways of one process."""

    def __init__(self) -> None:
        self._replicas: dict[str, tuple[Replica, dict[str, AppliedLog], float]] = {}

    @override
    async def announce(self, replica: Replica, applied: Mapping[str, LogHead], *, ttl_s: float) -> bool:
        was_live = replica.id in await self.live()
        held = self._replicas[replica.id][1] if was_live else {}
        held |= {name: AppliedLog(log_id=head.log_id, length=head.length) for name, head in applied.items()}
        self._replicas[replica.id] = replica, held, time.monotonic() + ttl_s
        return was_live

    @override
    async def withdraw(self, replica_id: str) -> None:
        self._replicas.pop(replica_id, None)

    @override
    async def live(self) -> dict[str, Replica]:
        now_s = time.monotonic()
        return {
            replica_id: replica
            for replica_id, (replica, _, until_s) in self._replicas.items()
            if now_s < until_s
        }

    @override
    async def applied(self, namespace: str) -> dict[str, AppliedLog]:
        return {
            replica_id: self._replicas[replica_id][1].get(namespace, NOTHING_APPLIED)
            for replica_id in await self.live()
        }


class InMemoryTrafficStore(TrafficStore):
    """Keeps them until it is garbage collected."""

    def __init__(self) -> None:
        self._recorded: dict[str, deque[tuple[float, RecordedQuery]]] = {}

    @override
    async def add(
        self, namespace: str, queries: Sequence[RecordedQuery], *, max_queries: int, ttl_s: int
    ) -> None:
        recorded = self._recorded.setdefault(check_namespace(namespace), deque())
        recorded.extend((time.time(), query) for query in queries)
        while len(recorded) > max_queries:
            recorded.popleft()
        await self.forget(namespace, ttl_s=ttl_s)

    @override
    async def recent(self, namespace: str, *, max_queries: int, ttl_s: int) -> list[RecordedQuery]:
        recorded = self._recorded.get(check_namespace(namespace), ())
        since = time.time() - ttl_s
        return [query for at, query in reversed(recorded) if at >= since][:max_queries]

    @override
    async def forget(self, namespace: str, *, ttl_s: int) -> None:
        recorded = self._recorded.get(check_namespace(namespace), deque())
        while recorded and recorded[0][0] < time.time() - ttl_s:
            recorded.popleft()

    @override
    async def clear(self, namespace: str) -> int:
        return len(self._recorded.pop(check_namespace(namespace), ()))


class InMemoryVerificationStore(VerificationStore):
    """Keeps them until it is garbage collected."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], Verification] = {}

    @override
    async def put(self, namespace: str, verification: Verification) -> None:
        self._last[check_namespace(namespace), check_edit_id(verification.edit_id)] = verification

    @override
    async def get(self, namespace: str, edit_id: str) -> Verification | None:
        return self._last.get((check_namespace(namespace), check_edit_id(edit_id)))
