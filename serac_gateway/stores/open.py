"""Which edit store a gateway gets."""

from __future__ import annotations

from pathlib import Path

from serac_gateway.config.model import GatewayConfig
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.redis.clients import NO_TLS_FILES, TlsFiles
from serac_gateway.stores.redis.store import RedisStore


async def open_configured_store(config: GatewayConfig) -> EditStore:
    """The store that the configuration names. Raises as `open_store` does."""
    tls = TlsFiles(
        ca_file=config.store.ca_file, cert_file=config.store.cert_file, key_file=config.store.key_file
    )
    return await open_store(config.store.url, config.data_path, tls=tls)


async def open_store(url: str | None, data_path: Path, *, tls: TlsFiles = NO_TLS_FILES) -> EditStore:
    """The store at `url`, or with None an embedded Valkey that lives in `data_path` and ends with the store.

    Raises:
        ConfigError: It cannot be used; one line with the remedy and without a password.
    """
    if url is not None:
        return await RedisStore.open(url, tls=tls)
    return await RedisStore.open_embedded(data_path / "valkey")
