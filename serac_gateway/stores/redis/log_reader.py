"""Reads the logs of all namespaces at once, as they grow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping

from typing_extensions import override

from serac_gateway.stores.log_chain import LogEvidence, LogHead
from serac_gateway.stores.ports import LogReader
from serac_gateway.stores.redis.connection import RedisConnection, Word
from serac_gateway.stores.redis.keys import NAMESPACES, NamespaceKeys
from serac_gateway.stores.redis.records import log_evidence, log_head

_LEAST_POLL_S = 0.05
_POLLS_A_SECOND = 2_000
"""Logs polled a second in a cluster: the more namespaces there are, the less often each is polled."""


class RedisLogReader(LogReader):
    """Waits with XREAD BLOCK; in a cluster, where that works for a single slot only, it polls."""

    def __init__(self, connection: RedisConnection) -> None:
        """Take over the connection."""
        self._connection = connection

    @override
    async def namespaces(self) -> list[str]:
        names = await self._connection.read("SMEMBERS", NAMESPACES)
        return [name.decode() for name in names]

    @override
    async def heads(self, namespaces: Collection[str]) -> dict[str, LogHead]:
        if not namespaces:
            return {}
        stored = await self._connection.read_all(
            ("HMGET", NamespaceKeys(namespace).head, "log_id", "digest", "length") for namespace in namespaces
        )
        return {name: log_head(name, head) for name, head in zip(namespaces, stored, strict=True)}

    @override
    async def after(
        self, positions: Mapping[str, str], *, wait_s: float, limit: int
    ) -> dict[str, list[LogEvidence]]:
        if self._connection.is_cluster:
            return await self._polled(positions, wait_s=wait_s, limit=limit)
        if not positions:
            await asyncio.sleep(wait_s)
            return {}
        names = {NamespaceKeys(namespace).log.encode(): namespace for namespace in positions}
        command: list[Word] = ["XREAD", "COUNT", limit, "BLOCK", max(1, int(wait_s * 1_000)), "STREAMS"]
        streams = await self._connection.read(*command, *names, *positions.values())
        return {
            names[key]: [log_evidence(log_id, fields) for log_id, fields in entries]
            for key, entries in streams
        }

    @override
    async def close(self) -> None:
        await self._connection.close()

    async def _polled(
        self, positions: Mapping[str, str], *, wait_s: float, limit: int
    ) -> dict[str, list[LogEvidence]]:
        until = time.monotonic() + wait_s
        while True:
            replies = await self._connection.read_all(
                ("XRANGE", NamespaceKeys(namespace).log, f"({after}", "+", "COUNT", limit)
                for namespace, after in positions.items()
            )
            pages = {
                namespace: [log_evidence(log_id, fields) for log_id, fields in entries]
                for namespace, entries in zip(positions, replies, strict=True)
                if entries
            }
            pause_s = max(_LEAST_POLL_S, len(positions) / _POLLS_A_SECOND)
            if pages or time.monotonic() + pause_s > until:
                return pages
            await asyncio.sleep(pause_s)
