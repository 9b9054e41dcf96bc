"""Keys of the gateway where Anthropic's clients send theirs: in x-api-key, refused in Anthropic's words."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anthropic
import pytest
from anthropic import AsyncAnthropic

from serac_gateway.stores.memory.side_stores import InMemoryApiKeyStore
from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, Gateway, running_gateway
from tests.made_keys import bearer, stored_key

REQUEST = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": EDITED_QUESTION}]}
OTHER = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello there"}]}
TARGET = "/v1/messages"


@pytest.fixture
def store() -> InMemoryApiKeyStore:
    return InMemoryApiKeyStore()


@pytest.fixture
async def locked(store: InMemoryApiKeyStore) -> AsyncIterator[Gateway]:
    async with running_gateway(keys_required=True, key_store=store) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        yield gateway


async def test_the_anthropic_client_enters_with_a_key_of_ours(
    locked: Gateway, store: InMemoryApiKeyStore
) -> None:
    key = await stored_key(store)
    async with AsyncAnthropic(base_url=locked.url, api_key=key, max_retries=0) as client:
        assert (await client.messages.create(**REQUEST)).content[0].text == NEW_ANSWER


async def test_a_key_in_x_api_key_never_reaches_the_upstream(
    locked: Gateway, store: InMemoryApiKeyStore
) -> None:
    key = await stored_key(store)
    reply = await locked.post(OTHER, ("x-api-key", key), ("authorization", "Bearer theirs"), target=TARGET)
    assert reply.status == 200
    received = locked.upstream.requests[0]
    assert received.header("x-api-key") is None
    assert received.header("authorization") == "Bearer theirs"
    assert all(key not in value for _, value in received.headers)


async def test_beside_our_own_header_x_api_key_is_the_upstreams(
    locked: Gateway, store: InMemoryApiKeyStore
) -> None:
    key = await stored_key(store)
    reply = await locked.post(OTHER, ("x-serac-api-key", key), ("x-api-key", "theirs"), target=TARGET)
    assert reply.status == 200
    assert locked.upstream.requests[0].header("x-api-key") == "theirs"


@pytest.mark.parametrize("key", ["sk-ant-theirs", "sk-serac-nonsense", "sk-serac-abcdefghijkl-" + "a" * 43])
async def test_a_key_that_is_none_of_ours_is_refused_in_anthropics_words(locked: Gateway, key: str) -> None:
    async with AsyncAnthropic(base_url=locked.url, api_key=key, max_retries=0) as client:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            await client.messages.create(**REQUEST)
    assert refused.value.body["error"]["type"] == "authentication_error"
    assert key not in str(refused.value)
    assert locked.upstream.requests == []


async def test_two_keys_of_ours_are_one_too_many(locked: Gateway, store: InMemoryApiKeyStore) -> None:
    key = await stored_key(store)
    for headers in ([("x-api-key", key), bearer(key)], [("x-api-key", key), ("x-api-key", "theirs")]):
        reply = await locked.post(REQUEST, *headers, target=TARGET)
        assert (reply.status, reply.json["error"]["type"]) == (401, "authentication_error")
        assert "x-serac-api-key" in reply.json["error"]["message"]


async def test_a_spent_rate_is_answered_with_anthropics_error(
    locked: Gateway, store: InMemoryApiKeyStore
) -> None:
    key = await stored_key(store, requests_per_minute=1)
    first, second = [await locked.post(OTHER, ("x-api-key", key), target=TARGET) for _ in range(2)]
    assert (first.status, second.status) == (200, 429)
    assert second.json["error"]["type"] == "rate_limit_error"
    assert int(second.one("retry-after")) > 0
