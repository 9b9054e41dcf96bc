"""Stored API keys, cached in this process: briefly, so that a revocation counts, longer in an outage."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from serac_gateway.auth.api_keys import StoredApiKey
from serac_gateway.auth.key_store import ApiKeyStore
from serac_gateway.errors import StoreUnavailableError

log = logging.getLogger(__name__)

FRESH_S = 0.5
"""A key is read again after this, so that its revocation takes effect within a second."""

_LONGEST_READ_S = 0.4
"""A request whose key is known from before waits no longer for a store that hangs."""


@dataclass(frozen=True, kw_only=True)
class _Seen:
    stored: StoredApiKey
    read_at_s: float
    """When the store last said so, on the monotonic clock."""


class KeyCache:
    """Reads a key from the store at most twice a second, however many requests carry it.

    While the store does not answer, a key that it gave out less than `outage_grace_s` ago counts as it was
    then. Ids that are unknown are not remembered. Belongs to one event loop.
    """

    def __init__(self, store: ApiKeyStore, *, outage_grace_s: float) -> None:
        self._store = store
        self.outage_grace_s = outage_grace_s
        """May be changed at any time."""
        self._seen: dict[str, _Seen] = {}
        self._reading: dict[str, asyncio.Task[StoredApiKey | None]] = {}
        self._failing = False

    async def get(self, key_id: str) -> StoredApiKey | None:
        """The key of that id, None if there is none.

        Raises:
            StoreUnavailableError: The store does not answer, and did not lately either.
        """
        seen = self._seen.get(key_id)
        age_s = float("inf") if seen is None else time.monotonic() - seen.read_at_s
        if seen is not None and age_s < FRESH_S:
            return seen.stored
        reading = self._reading.get(key_id)
        if reading is None:
            reading = self._reading[key_id] = asyncio.create_task(self._read(key_id))
            reading.add_done_callback(lambda ended: self._ended(key_id, ended))
        if seen is None or age_s >= self.outage_grace_s:
            return await asyncio.shield(reading)
        await asyncio.wait([reading], timeout=0 if self._failing else _LONGEST_READ_S)
        if not reading.done():
            self._note_outage("no answer in time")
            return seen.stored
        return seen.stored if isinstance(reading.exception(), StoreUnavailableError) else reading.result()

    async def close(self) -> None:
        """End what is being read. Idempotent."""
        reading = list(self._reading.values())
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)

    async def _read(self, key_id: str) -> StoredApiKey | None:
        try:
            stored = await self._store.get(key_id)
        except StoreUnavailableError as error:
            self._note_outage(error.message)
            raise
        self._failing = False
        if stored is None:
            self._seen.pop(key_id, None)
        else:
            self._seen[key_id] = _Seen(stored=stored, read_at_s=time.monotonic())
        return stored

    def _note_outage(self, words: str) -> None:
        if not self._failing:
            log.warning(
                "API keys cannot be read (%s): keys seen in the last %g s go on working", words,
                self.outage_grace_s,
            )  # fmt: skip
        self._failing = True

    def _ended(self, key_id: str, reading: asyncio.Task[StoredApiKey | None]) -> None:
        del self._reading[key_id]
        if not reading.cancelled():
            reading.exception()  # seen here, whether or not someone still waits
