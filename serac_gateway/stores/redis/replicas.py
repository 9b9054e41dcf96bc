"""Which gateways are live, and how far each has applied the logs.

A gateway is live while its heartbeat arrives: a few seconds after it ends, or is cut off from the store,
it is no longer waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from typing_extensions import override

from serac_gateway.stores.log_chain import LogHead
from serac_gateway.stores.ports import NOTHING_APPLIED, AppliedLog, Replica, ReplicaRegistry
from serac_gateway.stores.redis.connection import RedisConnection, Word

_PREFIX: Final = "serac:{@replicas}"
_IDS: Final = f"{_PREFIX}:ids"
"""Set: ids of gateways, perhaps also of some that have ended."""
_ABOUT: Final = "@"
"""Field of a gateway's hash (`<prefix>:<id>`, with a time to live) that holds its `Replica`. Each other
field is a namespace, with log id and length as far as applied."""

_FORGET = "return redis.call('EXISTS', KEYS[2]) == 0 and redis.call('SREM', KEYS[1], ARGV[1])"


class RedisReplicaRegistry(ReplicaRegistry):
    """Knows the gateways that share a server. All of it is on one cluster slot."""

    def __init__(self, connection: RedisConnection) -> None:
        """Borrow the connection: its owner closes it."""
        self._connection = connection
        self._forget = connection.script(_FORGET)

    @override
    async def announce(self, replica: Replica, applied: Mapping[str, LogHead], *, ttl_s: float) -> bool:
        key = _key(replica.id)
        fields: list[Word] = [_ABOUT, msgspec.json.encode(replica)]
        for namespace, head in applied.items():
            fields += [namespace, f"{head.log_id} {head.length}"]
        was_live, *_ = await self._connection.write_all(
            [
                ("EXISTS", key),
                ("HSET", key, *fields),
                ("PEXPIRE", key, int(ttl_s * 1_000)),
                ("SADD", _IDS, replica.id),
            ],
            repeatable=True,
        )
        if not was_live:
            await self._remove_ended()
        return bool(was_live)

    @override
    async def withdraw(self, replica_id: str) -> None:
        await self._connection.write_all(
            [("DEL", _key(replica_id)), ("SREM", _IDS, replica_id)], repeatable=True
        )

    @override
    async def live(self) -> dict[str, Replica]:
        fields = await self._fields(_ABOUT)
        return {
            replica_id: msgspec.json.decode(about, type=Replica)
            for replica_id, (about,) in fields.items()
            if about
        }

    @override
    async def applied(self, namespace: str) -> dict[str, AppliedLog]:
        fields = await self._fields(_ABOUT, namespace)
        return {
            replica_id: _applied_log(position) for replica_id, (about, position) in fields.items() if about
        }

    async def _fields(self, *names: str) -> dict[str, list[bytes | None]]:
        ids = [replica_id.decode() for replica_id in await self._connection.read("SMEMBERS", _IDS)]
        fields = await self._connection.read_all(("HMGET", _key(replica_id), *names) for replica_id in ids)
        return dict(zip(ids, fields, strict=True))

    async def _remove_ended(self) -> None:
        for replica_id, (about,) in (await self._fields(_ABOUT)).items():
            if about is None:
                await self._connection.run(self._forget(keys=[_IDS, _key(replica_id)], args=[replica_id]))


def _key(replica_id: str) -> str:
    return f"{_PREFIX}:{replica_id}"


def _applied_log(position: bytes | None) -> AppliedLog:
    if position is None:
        return NOTHING_APPLIED
    log_id, length = position.decode().split(" ")
    return AppliedLog(log_id=log_id, length=int(length))
