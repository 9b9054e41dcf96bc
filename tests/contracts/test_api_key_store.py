"""What every store of API keys does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import redis

from serac_gateway.auth.api_keys import ApiKeyDraft, StoredApiKey, new_api_key
from serac_gateway.auth.key_store import ApiKeyStore
from serac_gateway.auth.principals import Role
from serac_gateway.errors import InvalidRequestError, StoreUnavailableError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.redis.store import RedisStore
from tests.contracts.served_stores import ServedStore

NOW = datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.fixture
def key_store(edit_store: EditStore) -> ApiKeyStore:
    """The keys beside the edits of each store in turn."""
    return edit_store.api_keys()


def made(name: str = "CI", *, age_s: int = 0) -> StoredApiKey:
    draft = ApiKeyDraft(
        name=name, role=Role.EDIT, namespaces=("acme", "umbra"), expires_at=NOW + timedelta(days=9)
    )
    return new_api_key(
        draft, pepper=b"p" * 32, created_by="Jo (key x)", now=NOW - timedelta(seconds=age_s)
    ).stored


async def test_a_key_comes_back_as_it_was_added(key_store: ApiKeyStore) -> None:
    stored = made("Zoë Ünïcode")
    await key_store.add(stored)
    assert await key_store.get(stored.key.id) == stored
    assert await key_store.all() == [stored]


async def test_an_unknown_key_is_none_also_to_revoke(key_store: ApiKeyStore) -> None:
    assert await key_store.get("A" * 12) is None
    assert await key_store.revoke("A" * 12, NOW) is None
    assert await key_store.all() == []


async def test_adding_the_same_key_twice_is_once_and_another_of_its_id_is_refused(
    key_store: ApiKeyStore,
) -> None:
    stored, other = made(), made("other")
    await key_store.add(stored)
    await key_store.add(stored)
    impostor = msgspec.structs.replace(other, key=msgspec.structs.replace(other.key, id=stored.key.id))
    with pytest.raises(ValueError, match=stored.key.id):
        await key_store.add(impostor)
    assert await key_store.all() == [stored]


async def test_a_revoked_key_keeps_the_first_time_and_stays_in_the_list(key_store: ApiKeyStore) -> None:
    stored = made()
    await key_store.add(stored)
    revoked = await key_store.revoke(stored.key.id, NOW)
    assert revoked is not None
    assert revoked.key.revoked_at == NOW
    assert await key_store.revoke(stored.key.id, NOW + timedelta(days=1)) == revoked
    assert await key_store.get(stored.key.id) == revoked
    assert [stored.key.revoked_at for stored in await key_store.all()] == [NOW]


async def test_keys_are_listed_oldest_first_with_their_last_use(key_store: ApiKeyStore) -> None:
    newer, older = made("newer", age_s=1), made("older", age_s=2)
    await key_store.add(newer)
    await key_store.add(older)
    await key_store.note_use(newer.key.id, NOW)
    await key_store.note_use(newer.key.id, NOW + timedelta(minutes=1))
    listed = [(stored.key.name, stored.key.last_used_at) for stored in await key_store.all()]
    assert listed == [("older", None), ("newer", NOW + timedelta(minutes=1))]


@pytest.mark.parametrize(
    "bad", ["", "A" * 11, "A" * 13, "AAAA AAAAAAA", "../../../../", "AAAAAAAAAAA\n", "é" * 12]
)
async def test_an_id_that_cannot_be_one_never_reaches_the_store(key_store: ApiKeyStore, bad: str) -> None:
    for call in (key_store.get(bad), key_store.revoke(bad, NOW), key_store.note_use(bad, NOW)):
        with pytest.raises(InvalidRequestError, match="key id"):
            await call


async def test_keys_of_two_gateways_on_one_server_are_the_same(served: ServedStore) -> None:
    stored = made()
    await served.store.api_keys().add(stored)
    other = await RedisStore.open(served.url)
    try:
        assert await other.api_keys().get(stored.key.id) == stored
        await other.api_keys().revoke(stored.key.id, NOW)
    finally:
        await other.close()
    seen = await served.store.api_keys().get(stored.key.id)
    assert seen is not None
    assert seen.key.revoked_at == NOW


async def test_what_lies_in_the_server_is_no_key(served: ServedStore, admin: redis.Redis) -> None:
    new = new_api_key(ApiKeyDraft(name="CI", role=Role.CHAT), pepper=b"", created_by=None, now=NOW)
    await served.store.api_keys().add(new.stored)
    secret = new.text.rpartition("-")[2].encode()
    names = list(admin.scan_iter("serac:*"))
    assert b"serac:{@keys}:records" in names
    for name in names:
        if admin.type(name) == b"hash":
            assert secret not in repr(admin.hgetall(name)).encode()


async def test_an_added_key_survives_a_killed_server(served: ServedStore) -> None:
    keys, stored = served.store.api_keys(), made()
    await keys.add(stored)
    served.kill()
    with pytest.raises(StoreUnavailableError):
        await keys.get(stored.key.id)
    await served.wait_until_back()
    assert await keys.get(stored.key.id) == stored
