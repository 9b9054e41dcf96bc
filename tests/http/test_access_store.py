"""API keys and the store they lie in: revocation, outages, and how often it is read."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serac_gateway.auth.authenticator import Authenticator
from serac_gateway.config.model import AccessConfig, GatewayConfig
from serac_gateway.errors import AuthenticationError, ConfigError, StoreUnavailableError
from serac_gateway.stores.memory.side_stores import InMemoryApiKeyStore
from serac_gateway.stores.redis.store import RedisStore
from tests.contracts.served_stores import RedisServer
from tests.http.running_gateway import chat, running_gateway
from tests.made_keys import bearer, new_key, stored_key


async def test_a_key_revoked_by_one_gateway_is_refused_by_another_within_a_second(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        first, second = [await RedisStore.open(server.url) for _ in range(2)]
        new = new_key()
        await first.api_keys().add(new.stored)
        async with running_gateway(keys_required=True, key_store=second.api_keys()) as gateway:
            assert (await gateway.post(chat("x"), bearer(new.text))).status == 200
            await first.api_keys().revoke(new.stored.key.id, datetime.now(UTC))
            begun = time.monotonic()
            while (await gateway.post(chat("x"), bearer(new.text))).status == 200:
                await asyncio.sleep(0.01)
            assert time.monotonic() - begun < 1.0
        await first.close()
        await second.close()
    finally:
        server.kill()


@pytest.mark.parametrize("outage", ["killed", "paused"])
async def test_in_an_outage_of_the_store_keys_seen_lately_go_on_and_others_wait(
    tmp_path: Path, outage: str
) -> None:
    server = RedisServer(tmp_path)
    server.start()
    store = await RedisStore.open(server.url)
    try:
        seen, unseen = [await stored_key(store.api_keys()) for _ in range(2)]
        async with running_gateway(keys_required=True, key_store=store.api_keys()) as gateway:
            assert (await gateway.post(chat("x"), bearer(seen))).status == 200
            if outage == "killed":
                server.kill()
            else:
                server.pause()
            await asyncio.sleep(0.6)
            begun = time.monotonic()
            for _ in range(5):
                assert (await gateway.post(chat("x"), bearer(seen))).status == 200
            assert time.monotonic() - begun < 1.0
            refused = await gateway.post(chat("x"), bearer(unseen))
            assert (refused.status, refused.json["error"]["code"]) == (503, "store_unavailable")
            assert refused.one("retry-after")
            if outage == "killed":
                server.start()
            else:
                server.resume()
            async with asyncio.timeout(10):
                while (await gateway.post(chat("x"), bearer(unseen))).status != 200:
                    await asyncio.sleep(0.05)
    finally:
        await store.close()
        server.kill()


async def test_after_the_grace_an_outage_lets_nobody_in(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    store = await RedisStore.open(server.url)
    try:
        key = await stored_key(store.api_keys())
        config = GatewayConfig(access=AccessConfig(outage_grace_s=0.7))
        async with running_gateway(config=config, keys_required=True, key_store=store.api_keys()) as gateway:
            assert (await gateway.post(chat("x"), bearer(key))).status == 200
            server.kill()
            await asyncio.sleep(0.8)
            assert (await gateway.post(chat("x"), bearer(key))).status == 503
    finally:
        await store.close()
        server.kill()


async def test_without_a_key_that_fits_the_pepper_nobody_could_enter() -> None:
    store = InMemoryApiKeyStore()
    with pytest.raises(ConfigError, match="there is none; make the first"):
        await Authenticator(store, required=True).require_usable_key()
    expired = new_key(expires_at=datetime.now(UTC) + timedelta(milliseconds=1))
    await store.add(expired.stored)
    await asyncio.sleep(0.01)
    with pytest.raises(ConfigError, match="there is none"):
        await Authenticator(store, required=True).require_usable_key()
    key = await stored_key(store)
    await Authenticator(store, required=True).require_usable_key()
    peppered = Authenticator(store, required=True, pepper=b"p" * 32)
    with pytest.raises(ConfigError, match="under this SERAC_KEY_PEPPER"):
        await peppered.require_usable_key()
    with pytest.raises(AuthenticationError):
        await peppered.authenticate([(b"authorization", f"Bearer {key}".encode())])


async def test_a_last_use_that_cannot_be_noted_stops_nobody() -> None:
    class ReadOnlyStore(InMemoryApiKeyStore):
        async def note_use(self, key_id: str, at: datetime) -> None:
            raise StoreUnavailableError("it is a replica")

    store = ReadOnlyStore()
    key = await stored_key(store)
    async with running_gateway(keys_required=True, key_store=store) as gateway:
        assert (await gateway.post(chat("x"), bearer(key))).status == 200


async def test_many_requests_with_one_key_read_and_write_the_store_seldom() -> None:
    class CountingStore(InMemoryApiKeyStore):
        reads = writes = 0

        async def get(self, key_id: str):  # noqa: ANN202
            self.reads += 1
            await asyncio.sleep(0.01)
            return await super().get(key_id)

        async def note_use(self, key_id: str, at: datetime) -> None:
            self.writes += 1
            await super().note_use(key_id, at)

    store = CountingStore()
    key = await stored_key(store)
    async with running_gateway(keys_required=True, key_store=store) as gateway:
        responses = await asyncio.gather(*(gateway.post(chat("x"), bearer(key)) for _ in range(50)))
    assert {response.status for response in responses} == {200}
    assert store.reads <= 3
    assert store.writes == 1
    assert (await store.all())[0].key.last_used_at is not None
