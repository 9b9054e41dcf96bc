"""Looks at the configured edit store without becoming its gateway: nothing is written, no layout changed.

The server of an embedded store is the running gateway's; while none runs, it is started for the look.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from serac_gateway.config.model import GatewayConfig
from serac_gateway.errors import ConfigError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.redis.clients import TlsFiles
from serac_gateway.stores.redis.connection import RedisConnection
from serac_gateway.stores.redis.embedded_valkey import EmbeddedValkey, running_server_url
from serac_gateway.stores.redis.folder_lock import locked_folder
from serac_gateway.stores.redis.keys import SCHEMA, SCHEMA_VERSION
from serac_gateway.stores.redis.store import RedisStore

_PINGS = 5


class StoreFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the server of a store says of itself."""

    name: str
    """Quoted, without a password."""
    version: str
    latency_ms: float
    """Median of five round trips."""
    clock_ahead_s: float
    """Of this machine's clock."""
    unsafe_settings: dict[str, tuple[str, str]] | None
    """By name what is and what should be; None: they may not be read."""
    is_current: bool
    """Whether it is empty, or has the layout of this version; else it is migrated at the next start."""


class InspectedStore(msgspec.Struct, frozen=True, kw_only=True):
    """A store to read from, and what its server says."""

    store: EditStore
    facts: StoreFacts


@asynccontextmanager
async def inspected_store(config: GatewayConfig) -> AsyncIterator[InspectedStore | None]:
    """The configured store; None: it is an embedded one that no gateway has made yet.

    Raises:
        ConfigError: It cannot be reached, is too old, or does not start.
        StoreUnavailableError: It failed meanwhile.
    """
    async with AsyncExitStack() as stack:
        connection = await _connection(config, stack)
        if connection is None:
            yield None
            return
        store = RedisStore(connection)
        stack.push_async_callback(store.close)
        yield InspectedStore(store=store, facts=await _facts(connection))


async def _connection(config: GatewayConfig, stack: AsyncExitStack) -> RedisConnection | None:
    if (url := config.store.url) is not None:
        tls = TlsFiles(
            ca_file=config.store.ca_file, cert_file=config.store.cert_file, key_file=config.store.key_file
        )
        return await RedisConnection.open(url, tls=tls)
    folder = config.data_path / "valkey"
    if not folder.is_dir():
        return None
    try:
        with locked_folder(folder):
            pass
    except ConfigError:  # a gateway runs on it
        running_url = stack.enter_context(running_server_url(folder))
        return await RedisConnection.open(running_url, name=f"{str(folder)!r} (embedded Valkey)")
    except OSError as exc:
        raise ConfigError(
            f"the embedded store's folder {str(folder)!r} cannot be read: {exc.strerror or exc}; run this as"
            " the gateway's user"
        ) from exc
    server = await EmbeddedValkey.start(folder)
    stack.push_async_callback(server.stop)
    return await RedisConnection.open(server.url, name=server.name)


async def _facts(connection: RedisConnection) -> StoreFacts:
    latencies_ms = []
    for _ in range(_PINGS):
        begun_s = time.perf_counter()
        await connection.ask_any_node("PING")
        latencies_ms.append((time.perf_counter() - begun_s) * 1_000)
    begun_s = time.time()
    seconds, microseconds = await connection.ask_any_node("TIME")
    here_s = (begun_s + time.time()) / 2
    schema = await connection.read("GET", SCHEMA)
    return StoreFacts(
        name=connection.name,
        version=await connection.server_version(),
        latency_ms=statistics.median(latencies_ms),
        clock_ahead_s=int(seconds) + int(microseconds) / 1e6 - here_s,
        unsafe_settings=await connection.settings_that_lose_edits(),
        is_current=schema is None or int(schema) == SCHEMA_VERSION,
    )
