"""Which gateways are live, and how far each has applied the logs.

A gateway is live while its announcements are fresh: one that ends, or is cut off from the store, is not
waited for any more after a few seconds.
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
"""Set: ids of gateways, those that are gone perhaps among them."""
_ABOUT: Final = "@"
"""Field of a gateway's hash (`<prefix>:<id>`, with a time to live) that tells of it. Each other field is a
namespace, with log id and length as far as applied."""

_FORGET = "return redis.call('EXISTS', KEYS[2]) == 0 and redis.call('SREM', KEYS[1], ARGV[1])"


class RedisReplicaRegistry(ReplicaRegistry):
    """Knows the gateways that share a server. All of it is on one cluster slot."""

    def __init__(self, connection: RedisConnection) -> None:
        """Borrow the connection: whoever opened it closes it."""
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
            await self._forget_the_dead()
        return bool(was_live)

    @override
    async def withdraw(self, replica_id: str) -> None:
        await self._connection.write_all(
            [("DEL", _key(replica_id)), ("SREM", _IDS, replica_id)], repeatable=True
        )

    @override
    async def live(self) -> dict[str, Replica]:
        told = await self._fields(_ABOUT)
        return {one: msgspec.json.decode(about, type=Replica) for one, (about,) in told.items() if about}

    @override
    async def applied(self, namespace: str) -> dict[str, AppliedLog]:
        told = await self._fields(_ABOUT, namespace)
        return {one: _applied_log(position) for one, (about, position) in told.items() if about}

    async def _fields(self, *names: str) -> dict[str, list[bytes | None]]:
        ids = [one.decode() for one in await self._connection.read("SMEMBERS", _IDS)]
        fields = await self._connection.read_all(("HMGET", _key(one), *names) for one in ids)
        return dict(zip(ids, fields, strict=True))

    async def _forget_the_dead(self) -> None:
        for one, (about,) in (await self._fields(_ABOUT)).items():
            if about is None:
                await self._connection.run(self._forget(keys=[_IDS, _key(one)], args=[one]))


def _key(replica_id: str) -> str:
    return f"{_PREFIX}:{replica_id}"


def _applied_log(told: bytes | None) -> AppliedLog:
    if told is None:
        return NOTHING_APPLIED
    log_id, length = told.decode().split(" ")
    return AppliedLog(log_id=log_id, length=int(length))
