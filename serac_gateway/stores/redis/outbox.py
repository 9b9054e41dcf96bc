"""The outbox of webhooks in Redis. What it holds names edits and proposals, and has no content of theirs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Final

import msgspec
from typing_extensions import override

from serac_gateway.stores.outbox import (
    KEPT_S,
    MAX_ENDED,
    MAX_REMEMBERED,
    Added,
    Claimed,
    Delivery,
    WebhookOutbox,
    newest_first,
)
from serac_gateway.stores.redis.connection import RedisConnection, Word

_PREFIX: Final = "serac:{@webhooks}"
_FIELD: Final = "delivery"

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
_ADD = (
    _NOW
    + """
if redis.call('ZSCORE', KEYS[3], ARGV[1]) then return 'known' end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 'full' end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - tonumber(ARGV[4]))
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[5]) end
return 'added'
"""
)
_CLAIM = (
    _NOW
    + """
local claimed = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[1])) do
  local record = redis.call('HGET', KEYS[2], id)
  if record then
    claimed[#claimed + 1] = record
    redis.call('ZADD', KEYS[1], now + ARGV[2], id)
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {claimed, redis.call('ZCARD', KEYS[1]), first[2] and math.max(0, first[2] - now) or -1}
"""
)
_POSTPONE = (
    _NOW
    + """
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
"""
)
_END = """
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[3], '*', ARGV[4], ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[5])
return 1
"""


class RedisWebhookOutbox(WebhookOutbox):
    """Three keys for each webhook, all on one cluster slot; a fourth for what ended.

    waiting: sorted set, event id by the time at which it is due, in ms · deliveries: hash, event id to JSON ·
    known: sorted set, event id by the time at which it was added · ended: capped stream.
    """

    def __init__(self, connection: RedisConnection) -> None:
        """Borrow the connection: its owner closes it."""
        self._connection = connection
        self._add = connection.script(_ADD)
        self._claim = connection.script(_CLAIM)
        self._postpone = connection.script(_POSTPONE)
        self._end = connection.script(_END)

    @override
    async def add(self, delivery: Delivery, *, max_waiting: int) -> Added:
        keys = [_key(delivery.webhook, part) for part in ("waiting", "deliveries", "known")]
        args: list[Word] = [
            delivery.event_id,
            msgspec.json.encode(delivery),
            max_waiting,
            MAX_REMEMBERED,
            KEPT_S,
        ]
        outcome = await self._connection.run(self._add(keys=keys, args=args))
        return Added(outcome.decode())

    @override
    async def claim(self, webhook: str, *, limit: int, lease_s: float) -> Claimed:
        keys = [_key(webhook, "waiting"), _key(webhook, "deliveries")]
        args: list[Word] = [limit, int(lease_s * 1_000)]
        records, waiting, next_ms = await self._connection.run(self._claim(keys=keys, args=args))
        return Claimed(
            deliveries=_read(records),
            waiting=waiting,
            next_in_s=None if next_ms < 0 else next_ms / 1_000,
        )

    @override
    async def postpone(self, delivery: Delivery, *, pause_s: float) -> None:
        keys = [_key(delivery.webhook, "waiting"), _key(delivery.webhook, "deliveries")]
        args: list[Word] = [delivery.event_id, msgspec.json.encode(delivery), int(pause_s * 1_000)]
        await self._connection.run(self._postpone(keys=keys, args=args))

    @override
    async def end(self, delivery: Delivery) -> None:
        keys = [_key(delivery.webhook, part) for part in ("waiting", "deliveries", "ended")]
        record = msgspec.json.encode(msgspec.structs.replace(delivery, body=""))
        args: list[Word] = [delivery.event_id, record, MAX_ENDED, _FIELD, KEPT_S]
        await self._connection.run(self._end(keys=keys, args=args))

    @override
    async def recent(self, webhook: str, *, limit: int) -> list[Delivery]:
        ended, waiting = await self._connection.read_all(
            [("XRANGE", _key(webhook, "ended"), "-", "+"), ("HVALS", _key(webhook, "deliveries"))]
        )
        records = [*(fields[_FIELD.encode()] for _, fields in ended), *waiting]
        return newest_first(_read(records), limit)

    @override
    async def waiting(self, webhook: str) -> int:
        return int(await self._connection.read("ZCARD", _key(webhook, "waiting")))


def _read(records: Iterable[bytes]) -> list[Delivery]:
    deliveries = []
    for record in records:
        with contextlib.suppress(ValueError):  # a damaged one is one event less
            deliveries.append(msgspec.json.decode(record, type=Delivery))
    return deliveries


def _key(webhook: str, part: str) -> str:
    return f"{_PREFIX}:{webhook}:{part}"
