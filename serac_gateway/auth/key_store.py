"""The port to the storage of API keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime

import msgspec

from serac_gateway.auth.api_keys import StoredApiKey


class ApiKeyStore(ABC):
    """API keys by id. A key is added, revoked perhaps, and never deleted: the log speaks of it.

    Async and task-safe. Every method raises StoreUnavailableError when the server cannot be reached or
    refuses, and InvalidRequestError for an id that cannot be one.
    """

    @abstractmethod
    async def add(self, stored: StoredApiKey) -> None:
        """Keep a new key.

        Raises:
            ValueError: Another key has its id.
        """

    @abstractmethod
    async def get(self, key_id: str) -> StoredApiKey | None:
        """The key with what happened to it since, but for its last use; None if there is none."""

    @abstractmethod
    async def all(self) -> list[StoredApiKey]:
        """Every key, with its last use, oldest first."""

    @abstractmethod
    async def revoke(self, key_id: str, at: datetime) -> StoredApiKey | None:
        """Revoke it for good, and return it; None if there is none. The first time counts."""

    @abstractmethod
    async def note_use(self, key_id: str, at: datetime) -> None:
        """Remember when it was last used. May be lost."""


def with_times(stored: StoredApiKey, **times: datetime | None) -> StoredApiKey:
    """`stored` with `revoked_at` or `last_used_at` replaced."""
    return msgspec.structs.replace(stored, key=msgspec.structs.replace(stored.key, **times))


def oldest_first(keys: Iterable[StoredApiKey]) -> list[StoredApiKey]:
    """Sorted by time of creation; keys of one moment by id."""
    return sorted(keys, key=lambda stored: (stored.key.created_at, stored.key.id))


def key_id_taken(key_id: str) -> ValueError:
    """The error of `add` for an id that another key has."""
    return ValueError(f"another API key has the id {key_id!r}")
