"""Which edit store a gateway gets."""

from __future__ import annotations

from pathlib import Path

from serac_gateway.stores.base import EditStore
from serac_gateway.stores.redis import RedisStore


async def open_store(url: str | None, data_path: Path) -> EditStore:
    """The store at `url`, or with None an embedded Valkey that lives in `data_path` and ends with the store.

    Raises:
        ConfigError: It cannot be used; one line with the remedy and without a password.
    """
    if url is not None:
        return await RedisStore.open(url)
    return await RedisStore.open_embedded(data_path / "valkey")
