"""Reads the logs of all namespaces at once, as they grow."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Collection, Mapping

from typing_extensions import override

from serac_gateway.domain.edits import is_namespace
from serac_gateway.errors import DamagedRecordError
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
        return [text for name in names if is_namespace(text := name.decode("utf-8", "replace"))]

    @override
    async def heads(self, namespaces: Collection[str]) -> dict[str, LogHead]:
        if not namespaces:
            return {}
        heads: dict[str, LogHead] = {}
        for name, head in zip(namespaces, await self._stored_heads(namespaces), strict=True):
            if head is not None:
                with contextlib.suppress(DamagedRecordError):
                    heads[name] = log_head(name, head)
        return heads

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
        try:
            return await self._read_streams(names, positions, wait_s=wait_s, limit=limit)
        except DamagedRecordError:
            # One of the keys is no stream, and the server then refuses to read any.
            types = await self._connection.read_all(("TYPE", name) for name in names)
            sound = {
                name: namespace
                for (name, namespace), kind in zip(names.items(), types, strict=True)
                if kind in (b"stream", b"none")
            }
            positions = {namespace: positions[namespace] for namespace in sound.values()}
            if not sound or len(sound) == len(names):
                await asyncio.sleep(wait_s)
                return {}
            return await self._read_streams(sound, positions, wait_s=wait_s, limit=limit)

    async def _read_streams(
        self, names: Mapping[bytes, str], positions: Mapping[str, str], *, wait_s: float, limit: int
    ) -> dict[str, list[LogEvidence]]:
        command: list[Word] = ["XREAD", "COUNT", limit, "BLOCK", max(1, int(wait_s * 1_000)), "STREAMS"]
        streams = await self._connection.read(*command, *names, *positions.values())
        return {
            names[key]: [log_evidence(log_id, fields) for log_id, fields in entries]
            for key, entries in streams
        }

    @override
    async def close(self) -> None:
        await self._connection.close()

    async def _stored_heads(self, namespaces: Collection[str]) -> list[list[bytes | None] | None]:
        """The fields of each head; None where the head or the log is of another type."""
        fields = ("log_id", "digest", "length")
        keys = [NamespaceKeys(namespace) for namespace in namespaces]
        try:
            return await self._connection.read_all(("HMGET", key.head, *fields) for key in keys)
        except DamagedRecordError:
            pass
        types = await self._connection.read_all(("TYPE", key.head) for key in keys)
        readable = [kind in (b"hash", b"none") for kind in types]
        stored = iter(
            await self._connection.read_all(
                ("HMGET", key.head, *fields) for key in itertools.compress(keys, readable)
            )
            if any(readable)
            else ()
        )
        return [next(stored) if is_readable else None for is_readable in readable]

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
