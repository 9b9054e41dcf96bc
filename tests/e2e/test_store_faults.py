"""What a gateway does while its store fails: writes are refused or wait, chat goes on, and it gets over it.

Case 20 of docs/proxy_cases.md, where Redis is down. Each test ends with the same questions: are writes taken
again without a restart, is no acknowledged edit lost, is the log's chain valid, and is what is in force what
is stored?
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contracts.served_clusters import SentinelServers
from tests.contracts.served_stores import RedisServer
from tests.e2e.fault_proxy import FaultProxy
from tests.e2e.gateway_on_store import GatewayOnStore, gateway_on

QUICK = "?socket_timeout=0.6&socket_connect_timeout=0.6"
"""Instead of five seconds, so that a test need not wait as long."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    redis_server = RedisServer(tmp_path)
    redis_server.start()
    yield redis_server
    redis_server.kill()


@pytest.fixture
async def gateway(server: RedisServer, tmp_path: Path) -> AsyncIterator[GatewayOnStore]:
    async with gateway_on(server.url + QUICK, tmp_path, max_staleness_s=2) as running:
        await running.add_edited_question()
        yield running


async def test_a_store_that_is_restarted(server: RedisServer, gateway: GatewayOnStore) -> None:
    server.kill()
    assert (await gateway.add("refused")).status_code == 503
    await gateway.assert_chat_goes_on()
    assert await gateway.is_ready(), "a short outage takes no gateway out"
    await gateway.until_ready(False)
    await gateway.assert_chat_goes_on()
    server.start()
    await gateway.assert_recovers()
    await gateway.assert_chat_goes_on()


@pytest.mark.parametrize("pause_s", [2, pytest.param(30, marks=pytest.mark.slow)])
async def test_a_store_that_stops_answering_for_a_while(
    server: RedisServer, tmp_path: Path, pause_s: float
) -> None:
    url = server.url if pause_s == 30 else server.url + QUICK
    async with gateway_on(url, tmp_path) as gateway:
        await gateway.add_edited_question()
        server.pause()
        paused_at_s = time.monotonic()
        refused = await gateway.add("refused-or-not")
        assert refused.status_code == 503
        assert "repeat it with its idempotency key" in refused.json()["detail"]
        await gateway.until_ready(False)
        while time.monotonic() < paused_at_s + pause_s:
            await gateway.assert_chat_goes_on()
            await asyncio.sleep(0.2)
        server.resume()
        await gateway.assert_recovers()


async def test_a_store_that_is_full(server: RedisServer, gateway: GatewayOnStore) -> None:
    with server.client() as admin:
        admin.config_set("maxmemory", 1)
        refused = await gateway.add("refused")
        assert refused.status_code == 503
        assert "maxmemory" in refused.json()["detail"]
        await gateway.assert_chat_goes_on()
        await asyncio.sleep(2.2)
        assert await gateway.is_ready(), "it reads, so its edits are up to date"
        admin.config_set("maxmemory", 0)
    await gateway.assert_recovers()


async def test_a_store_that_has_become_a_read_only_replica(
    server: RedisServer, gateway: GatewayOnStore
) -> None:
    with server.client() as admin:
        admin.replicaof("127.0.0.1", 1)
        refused = await gateway.add("refused")
        assert refused.status_code == 503
        assert "primary" in refused.json()["detail"]
        await gateway.assert_chat_goes_on()
        admin.replicaof("NO", "ONE")
    await gateway.assert_recovers()


async def test_a_disk_that_is_slow(server: RedisServer, gateway: GatewayOnStore) -> None:
    """CLIENT PAUSE WRITE stands in for it: writes hang in the server, reads do not."""
    with server.client() as admin:
        admin.client_pause(400, all=False)
        slow = asyncio.create_task(gateway.add("slow"))
        await gateway.assert_chat_goes_on()
        assert (await slow).status_code == 201, "shorter than the time allowed: it waits"
        admin.client_pause(1_500, all=False)
        assert (await gateway.add("too-slow")).status_code == 503
        await gateway.assert_chat_goes_on()
        assert await gateway.is_ready()
    await gateway.assert_recovers()


async def test_a_store_whose_last_writes_a_power_failure_tore_off(
    server: RedisServer, gateway: GatewayOnStore
) -> None:
    """Only a disk that lies about fsync loses acknowledged writes; then memory follows the store."""
    for number in range(20):
        await gateway.add(f"e{number:02d}")
    server.kill()
    (log_file,) = (server.folder / "appendonlydir").glob("*.incr.aof")
    whole = log_file.read_bytes()
    log_file.write_bytes(whole[: whole.rindex(b'"e15"') + 2])  # digests have e15 in them, too, now and then
    server.start()
    await gateway.until_ready()
    await gateway.assert_sound(with_acknowledged=False)
    stored = {edit.id for edit in gateway.live.all("default")}
    assert {f"e{number:02d}" for number in range(15)} <= stored
    assert not {"e16", "e19"} & stored, "what the store does not have is not in force"
    gateway.acknowledged &= stored
    await gateway.assert_recovers()


async def test_a_network_that_is_cut(server: RedisServer, tmp_path: Path) -> None:
    async with (
        FaultProxy(server.port) as proxy,
        gateway_on(proxy.url + QUICK, tmp_path) as cut_off,
        gateway_on(server.url, tmp_path) as other,
    ):
        await other.add_edited_question()
        await asyncio.sleep(0.3)
        proxy.cut()
        assert (await cut_off.add("refused")).status_code == 503
        for number in range(50):
            await other.add(f"e{number}")
        await cut_off.until_ready(False)
        await cut_off.assert_chat_goes_on()
        proxy.mend()
        await cut_off.until_ready()
        assert cut_off.live.count("default") == 51, "ready only when it has caught up"
        await cut_off.assert_recovers()
        await other.assert_recovers()


async def test_a_network_that_swallows_everything(server: RedisServer, tmp_path: Path) -> None:
    async with FaultProxy(server.port) as proxy, gateway_on(proxy.url + QUICK, tmp_path) as gateway:
        await gateway.add_edited_question()
        proxy.stall()
        assert (await gateway.add("refused-or-not")).status_code == 503
        await gateway.assert_chat_goes_on()
        await gateway.until_ready(False)
        proxy.mend()
        await gateway.assert_recovers()


async def test_a_network_that_is_slow(server: RedisServer, tmp_path: Path) -> None:
    async with (
        FaultProxy(server.port) as proxy,
        gateway_on(proxy.url, tmp_path) as far,
        gateway_on(server.url, tmp_path) as near,
    ):
        proxy.delay_s = 0.05
        await asyncio.sleep(0.5)
        for number in range(5):
            reply = await near.add(f"e{number}", **{"x-serac-wait": "all"})
            assert reply.headers["x-serac-applied"] == "2/2"
            started_s = time.monotonic()
            await far.add(f"f{number}")
            while near.live.current("default", f"f{number}") is None:
                assert time.monotonic() < started_s + 1.5
                await asyncio.sleep(0.005)
        assert await far.is_ready()
        await far.assert_recovers()


async def test_a_write_whose_reply_is_lost_can_be_repeated_and_takes_effect_once(
    server: RedisServer, tmp_path: Path
) -> None:
    async with FaultProxy(server.port) as proxy, gateway_on(proxy.url + QUICK, tmp_path) as gateway:
        await gateway.add_edited_question()
        proxy.lose_reply_to = b"EVALSHA"
        assert (await gateway.add("a", **{"idempotency-key": "k"})).status_code == 503
        until_s = time.monotonic() + 2
        while gateway.live.current("default", "a") is None:
            assert time.monotonic() < until_s, "the log brings what the reply did not"
            await asyncio.sleep(0.01)
        assert (await gateway.add("a", **{"idempotency-key": "k"})).status_code == 201
        assert len(await gateway.store.versions("default", "a")) == 1
        await gateway.assert_recovers()


async def test_a_failover_by_sentinel(tmp_path: Path) -> None:
    servers = SentinelServers(tmp_path)
    try:
        servers.start()
        async with gateway_on(servers.url + QUICK, tmp_path, max_staleness_s=2) as gateway:
            await gateway.add_edited_question()
            for number in range(20):
                assert (await gateway.add(f"e{number}")).status_code == 201
            first = servers.primary_port()
            with servers.server(first).client() as admin:
                assert admin.wait(1, 2_000) == 1, "replication is asynchronous; here it has caught up"
            servers.server(first).kill()
            assert (await gateway.add("refused")).status_code == 503
            await gateway.assert_chat_goes_on()
            await gateway.assert_recovers(timeout_s=30)
            await gateway.assert_chat_goes_on()
            assert servers.primary_port() != first
            servers.server(first).start()  # it comes back, and the Sentinels make it a replica
            await asyncio.sleep(1.5)
            await gateway.assert_recovers()
    finally:
        servers.kill()
