"""API keys in the edits' Redis or Valkey, in keys of their own."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Final

import msgspec
from typing_extensions import override

from serac_gateway.auth.api_keys import StoredApiKey, check_key_id
from serac_gateway.auth.key_store import ApiKeyStore, key_id_taken, oldest_first, with_times
from serac_gateway.stores.redis.connection import RedisConnection

log = logging.getLogger(__name__)

_RECORDS: Final = "serac:{@keys}:records"
"""Hash: key id to the JSON of its record, which never changes. No namespace has an @ in its name."""
_REVOKED: Final = "serac:{@keys}:revoked"
"""Hash: key id to the time of its revocation."""
_LAST_USED: Final = "serac:{@keys}:last-used"
"""Hash: key id to the time of its last use that was noted."""


class RedisApiKeyStore(ApiKeyStore):
    """All keys on one cluster slot. Every write is repeatable, so none needs a script."""

    def __init__(self, connection: RedisConnection) -> None:
        """Borrow the connection: its owner closes it."""
        self._connection = connection

    @override
    async def add(self, stored: StoredApiKey) -> None:
        key_id, record = check_key_id(stored.key.id), msgspec.json.encode(stored)
        added = await self._connection.write("HSETNX", _RECORDS, key_id, record, repeatable=True)
        if not added and await self._connection.read("HGET", _RECORDS, key_id) != record:
            raise key_id_taken(key_id)

    @override
    async def get(self, key_id: str) -> StoredApiKey | None:
        check_key_id(key_id)
        record, revoked = await self._connection.read_all(
            [("HGET", _RECORDS, key_id), ("HGET", _REVOKED, key_id)]
        )
        stored = None if record is None else _readable(key_id, record)
        return None if stored is None else with_times(stored, revoked_at=_revoked_at(revoked))

    @override
    async def all(self) -> list[StoredApiKey]:
        records, revoked, last_used = await self._connection.read_all(
            [("HGETALL", _RECORDS), ("HGETALL", _REVOKED), ("HGETALL", _LAST_USED)]
        )
        return oldest_first(
            with_times(
                stored,
                revoked_at=_revoked_at(revoked.get(key_id)),
                last_used_at=_time(last_used.get(key_id)),
            )
            for key_id, record in records.items()
            if (stored := _readable(key_id.decode("utf-8", "replace"), record)) is not None
        )

    @override
    async def revoke(self, key_id: str, at: datetime) -> StoredApiKey | None:
        if await self.get(key_id) is None:
            return None
        await self._connection.write("HSETNX", _REVOKED, key_id, at.isoformat(), repeatable=True)
        return await self.get(key_id)

    @override
    async def note_use(self, key_id: str, at: datetime) -> None:
        check_key_id(key_id)
        await self._connection.write("HSET", _LAST_USED, key_id, at.isoformat(), repeatable=True)


def _readable(key_id: str, record: bytes) -> StoredApiKey | None:
    """The key; None: what is stored of it is damaged, and then nobody has it."""
    try:
        stored = msgspec.json.decode(record, type=StoredApiKey)
        if stored.key.id != key_id:
            raise ValueError("it is of another key")
    except (ValueError, RecursionError) as exc:
        log.error("what is stored of API key %r is damaged, so it is refused: %s", key_id[:80], exc)
        return None
    return stored


def _time(text: bytes | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text.decode())
    except ValueError:
        return None


def _revoked_at(text: bytes | None) -> datetime | None:
    """When the key was revoked; long ago where nobody can read when."""
    return None if text is None else _time(text) or datetime.fromtimestamp(0, UTC)
