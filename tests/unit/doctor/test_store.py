"""The edit store, as a real server and by its contents."""

from __future__ import annotations

from pathlib import Path

import pytest

from serac_gateway.config.model import GatewayConfig, StoreConfig
from serac_gateway.doctor.findings import Level
from serac_gateway.doctor.store import encoder_findings, store_findings
from serac_gateway.errors import ConfigError
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.open import open_configured_store
from serac_gateway.stores.redis.inspection import StoreFacts, inspected_store
from tests.contracts.edit_store_calls import add, new
from tests.contracts.served_stores import RedisServer

FACTS = StoreFacts(
    name="'redis://s'", version="7.2", latency_ms=0.5, clock_ahead_s=0.0, unsafe_settings={}, is_current=True
)


def facts(**fields: object) -> StoreFacts:
    return StoreFacts(**{name: getattr(FACTS, name) for name in FACTS.__struct_fields__} | fields)


@pytest.mark.parametrize(
    ("changed", "level", "words"),
    [
        ({}, Level.OK, "every acknowledged edit"),
        ({"latency_ms": 90.0}, Level.WARN, "90.0 ms"),
        ({"is_current": False}, Level.WARN, "another version"),
        ({"unsafe_settings": None}, Level.WARN, "may not be read"),
        ({"unsafe_settings": {"appendonly": ("no", "yes")}}, Level.FAIL, "appendonly is no"),
        ({"unsafe_settings": {"appendfsync": ("everysec", "always")}}, Level.WARN, "last second"),
        ({"unsafe_settings": {"appendfsync": ("no", "always")}}, Level.FAIL, "appendfsync is no"),
        (
            {"unsafe_settings": {"maxmemory-policy": ("allkeys-lru", "noeviction")}},
            Level.FAIL,
            "maxmemory-policy is allkeys-lru",
        ),
    ],
)
def test_slow_and_forgetful_servers_are_named(changed: dict[str, object], level: Level, words: str) -> None:
    (finding,) = [finding for finding in store_findings(facts(**changed)) if words in finding.detail]
    assert finding.level is level


async def test_a_real_server_says_what_it_keeps_and_nothing_is_written_to_it(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, arguments=("--appendonly", "no"))
    server.start()
    try:
        async with inspected_store(GatewayConfig(store=StoreConfig(url=server.url))) as inspected:
            assert inspected is not None
            assert inspected.facts.unsafe_settings == {"appendonly": ("no", "yes")}
            assert abs(inspected.facts.clock_ahead_s) < 5
            assert 0 < inspected.facts.latency_ms < 1_000
            assert inspected.facts.is_current
        with server.client() as client:
            assert client.dbsize() == 0
            client.set("serac:schema", 1)
        async with inspected_store(GatewayConfig(store=StoreConfig(url=server.url))) as inspected:
            assert inspected is not None
            assert not inspected.facts.is_current
    finally:
        server.kill()


async def test_a_server_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot reach"):
        async with inspected_store(GatewayConfig(store=StoreConfig(url="redis://127.0.0.1:1/0"))):
            pass


async def test_an_embedded_store_is_looked_at_whether_a_gateway_runs_on_it_or_not(tmp_path: Path) -> None:
    config = GatewayConfig(data_dir=str(tmp_path))
    async with inspected_store(config) as inspected:
        assert inspected is None
        assert not (tmp_path / "valkey").exists()
    store = await open_configured_store(config)
    try:
        await add(store, new("e"))
        async with inspected_store(config) as beside:
            assert beside is not None
            assert await beside.store.namespaces() == ["default"]
            assert beside.facts.unsafe_settings == {}
    finally:
        await store.close()
    async with inspected_store(config) as stopped:
        assert stopped is not None
        assert (await stopped.store.get("default", "e")).target_new == "Ann"


async def test_vectors_of_another_encoder_are_named_with_their_namespace() -> None:
    store = InMemoryEditStore()
    await add(store, new("e"))
    (same,) = await encoder_findings(store, "encoder 0")
    assert (same.level, "1 edits" in same.detail) == (Level.OK, True)
    (other,) = await encoder_findings(store, "encoder 1")
    assert other.level is Level.FAIL
    assert other.remedy is not None
    assert "serac store reencode --namespace default" in other.remedy
