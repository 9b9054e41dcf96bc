"""Records recent queries of the namespaces that are configured for it, for previews of edits.

Off by default. What is recorded is redacted first, kept for a limited time and in limited number, and never
logged. Recording delays no request and fails none: a query that cannot be recorded at once is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import Coroutine, Sequence

from serac_gateway.config.model import TrafficConfig
from serac_gateway.domain.audiences import NO_LABELS, Labels
from serac_gateway.domain.queries import Query
from serac_gateway.errors import ConfigError, StoreUnavailableError
from serac_gateway.stores.ports import RecordedQuery, TrafficStore

log = logging.getLogger(__name__)

REDACTED = "[redacted]"
EVERY_NAMESPACE = "*"
_MAX_WAITING = 1_000
_PAUSE_S = 0.5
_FORGET_EVERY_S = 30.0


class TrafficRecorder:
    """Writes and reads the record. Belongs to one event loop; `close` writes the queries that wait."""

    def __init__(self, store: TrafficStore, config: TrafficConfig) -> None:
        """Record the namespaces that `config` names.

        Raises:
            ConfigError: A pattern of `redact` is no regular expression.
        """
        self._store = store
        self._config = config
        self._redact = [_compiled(pattern) for pattern in config.redact]
        self._waiting: list[tuple[str, RecordedQuery]] = []
        self._known = {name for name in config.namespaces if name != EVERY_NAMESPACE}
        self._writing: asyncio.Task[None] | None = None
        self.dropped = 0
        """Queries that came faster than they could be recorded."""

    def is_on(self, namespace: str) -> bool:
        """Whether queries of the namespace are recorded."""
        return self._config.records(namespace)

    @property
    def ttl_s(self) -> int:
        """The age at which texts are deleted."""
        return self._config.ttl_s

    def note(self, namespace: str, query: Query, labels: Labels = NO_LABELS) -> None:
        """Record a query of a request with `labels`, redacted, if the namespace wants that.

        Returns at once.
        """
        if not self.is_on(namespace):
            return
        if len(self._waiting) >= _MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append((namespace, RecordedQuery.of(query, labels)))
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write_regularly())

    def redacted(self, query: Query) -> Query:
        """The query as it is recorded."""
        return Query(
            text=self._without_secrets(query.text),
            context=tuple(self._without_secrets(turn) for turn in query.context),
            instructions=self._without_secrets(query.instructions),
            questions=tuple(self._without_secrets(question) for question in query.questions),
        )

    async def recent(self, namespace: str) -> list[RecordedQuery]:
        """The recorded queries that have not expired, newest first.

        Raises:
            StoreUnavailableError: The store failed.
        """
        await self._write()
        return await self._store.recent(
            namespace, max_queries=self._config.max_queries, ttl_s=self._config.ttl_s
        )

    async def clear(self, namespace: str) -> int:
        """Delete the record of the namespace, and return how many queries it had.

        Raises:
            StoreUnavailableError: The store failed.
        """
        before = len(self._waiting)
        self._waiting = [(name, query) for name, query in self._waiting if name != namespace]
        return before - len(self._waiting) + await self._store.clear(namespace)

    async def close(self) -> None:
        """Write the queries that wait, and stop. Idempotent."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
            self._writing = None
            await self._try(self._write())

    async def _write_regularly(self) -> None:
        """Write in batches, and delete expired queries also while none come in."""
        loop = asyncio.get_running_loop()
        forgotten_at = loop.time()
        while True:
            await asyncio.sleep(_PAUSE_S)
            await self._try(self._write())
            if loop.time() - forgotten_at >= _FORGET_EVERY_S:
                forgotten_at = loop.time()
                for namespace in sorted(self._known):
                    await self._try(self._store.forget(namespace, ttl_s=self._config.ttl_s))

    async def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        by_namespace: defaultdict[str, list[RecordedQuery]] = defaultdict(list)
        for namespace, query in waiting:
            by_namespace[namespace].append(query)
        for namespace, queries in by_namespace.items():
            self._known.add(namespace)
            # On a thread: patterns can take their time on a long text.
            redacted = await asyncio.to_thread(self._all_redacted, queries)
            await self._add(namespace, redacted)

    async def _add(self, namespace: str, queries: Sequence[RecordedQuery]) -> None:
        await self._store.add(
            namespace, queries, max_queries=self._config.max_queries, ttl_s=self._config.ttl_s
        )

    async def _try(self, writing: Coroutine[object, object, None]) -> None:
        try:
            await writing
        except StoreUnavailableError as error:
            log.warning("queries were not recorded: %s", error.message)

    def _all_redacted(self, queries: Sequence[RecordedQuery]) -> list[RecordedQuery]:
        return [RecordedQuery.of(self.redacted(query), dict(query.labels)) for query in queries]

    def _without_secrets(self, text: str) -> str:
        for pattern in self._redact:
            text = pattern.sub(REDACTED, text)
        return text


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as exc:
        raise ConfigError(f"traffic.redact holds {pattern!r}, which is no regular expression: {exc}") from exc
