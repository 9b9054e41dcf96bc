"""The record of recent queries, beside the edits: bounded in number and in time, never in any log."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import msgspec
from typing_extensions import override

from serac_gateway.domain.edits import check_namespace
from serac_gateway.stores.ports import RecordedQuery, TrafficStore
from serac_gateway.stores.redis.connection import RedisConnection

_FIELD = "query"


class RedisTrafficStore(TrafficStore):
    """A stream for each namespace. Its entries' ids are the server's time, by which they expire.

    Recording a query twice does no harm, so writes are sent again when their connection was closed.
    """

    def __init__(self, connection: RedisConnection) -> None:
        """Borrow the connection: its owner closes it."""
        self._connection = connection

    @override
    async def add(
        self, namespace: str, queries: Sequence[RecordedQuery], *, max_queries: int, ttl_s: int
    ) -> None:
        if not queries:
            return
        key = _key(namespace)
        additions = [
            ("XADD", key, "MAXLEN", max_queries, "*", _FIELD, msgspec.json.encode(query)) for query in queries
        ]
        await self._connection.write_all([*additions, ("EXPIRE", key, ttl_s)], repeatable=True)
        await self.forget(namespace, ttl_s=ttl_s)

    @override
    async def recent(self, namespace: str, *, max_queries: int, ttl_s: int) -> list[RecordedQuery]:
        since = await self._expiry(ttl_s)
        entries = await self._connection.read("XREVRANGE", _key(namespace), "+", since, "COUNT", max_queries)
        queries = []
        for _, fields in entries:
            with contextlib.suppress(ValueError, KeyError):  # a damaged one is one query less
                queries.append(msgspec.json.decode(fields[_FIELD.encode()], type=RecordedQuery))
        return queries

    @override
    async def forget(self, namespace: str, *, ttl_s: int) -> None:
        oldest = await self._expiry(ttl_s)
        await self._connection.write("XTRIM", _key(namespace), "MINID", oldest, repeatable=True)

    @override
    async def clear(self, namespace: str) -> int:
        key = _key(namespace)
        count, _ = await self._connection.write_all([("XLEN", key), ("DEL", key)], repeatable=True)
        return int(count)

    async def _expiry(self, ttl_s: int) -> int:
        """The first entry id that has not expired, by the server's clock."""
        seconds, microseconds = await self._connection.read("TIME")
        return (int(seconds) - ttl_s) * 1_000 + int(microseconds) // 1_000


def _key(namespace: str) -> str:
    return f"serac:{{{check_namespace(namespace)}}}:traffic"
