"""API keys on /v1: who is let in, what reaches the upstream, how often, and for how long (case 14)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import openai
import pytest
from openai import AsyncOpenAI

from serac_gateway.auth.principals import Role
from serac_gateway.config.model import AllowedPaths, GatewayConfig, UpstreamConfig
from serac_gateway.stores.memory.side_stores import InMemoryApiKeyStore
from serac_gateway.testing import ReceivedRequest, ScriptedConnection
from tests.http.running_gateway import (
    EDITED_QUESTION,
    NEW_ANSWER,
    OTHER_QUESTION,
    Gateway,
    chat,
    running_gateway,
)
from tests.http.wire import WireResponse, fetch
from tests.made_keys import Header, bearer, new_key, stored_key


@pytest.fixture
def keys() -> InMemoryApiKeyStore:
    return InMemoryApiKeyStore()


@pytest.fixture
async def locked(keys: InMemoryApiKeyStore) -> AsyncIterator[Gateway]:
    """A gateway that demands keys."""
    async with running_gateway(keys_required=True, key_store=keys) as gateway:
        yield gateway


def assert_refused(response: WireResponse, status: int, code: str, gateway: Gateway) -> None:
    assert response.status == status
    assert response.json["error"]["code"] == code
    assert set(response.json["error"]) == {"message", "type", "param", "code"}
    assert response.one("x-serac-route") == "bypass"
    assert gateway.upstream.requests == []


async def test_without_a_key_nothing_passes_and_the_reply_says_how_to_send_one(locked: Gateway) -> None:
    for headers in ([], [bearer("sk-an-upstreams-own")], [("x-api-key", "k")]):
        response = await locked.post(chat(OTHER_QUESTION), *headers)
        assert_refused(response, 401, "invalid_api_key", locked)
        assert response.one("www-authenticate") == "Bearer"
        assert "Authorization: Bearer sk-serac-" in response.json["error"]["message"]
    assert (await fetch(locked.url, "/v1/models", method="GET")).status == 401


async def test_health_needs_no_key(locked: Gateway) -> None:
    assert (await fetch(locked.url, "/health/live", method="GET")).status == 200


async def test_the_openai_client_is_served_with_a_key_and_refused_without(
    locked: Gateway, keys: InMemoryApiKeyStore
) -> None:
    await locked.add(EDITED_QUESTION, NEW_ANSWER)
    messages = [{"role": "user", "content": EDITED_QUESTION}]
    key = await stored_key(keys)
    async with AsyncOpenAI(base_url=f"{locked.url}/v1", api_key=key, max_retries=0) as client:
        answer = await client.chat.completions.create(model="m", messages=messages)
        assert answer.choices[0].message.content == NEW_ANSWER
        stream = await client.chat.completions.create(model="m", messages=messages, stream=True)
        assert [chunk async for chunk in stream]
    async with AsyncOpenAI(base_url=f"{locked.url}/v1", api_key=new_key().text, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model="m", messages=messages)
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize("upstream_key", [None, "upstream-secret"])
async def test_our_key_never_reaches_the_upstream(
    keys: InMemoryApiKeyStore, upstream_key: str | None
) -> None:
    key = await stored_key(keys)
    async with running_gateway(keys_required=True, key_store=keys, api_key=upstream_key) as gateway:
        for headers in (
            [bearer(key)],
            [("api-key", key)],
            [("x-serac-api-key", key)],
            [
                ("x-serac-api-key", key),
                bearer(key),
                ("x-api-key", key),
                ("api-key", key),
                ("cookie", f"k={key}"),
            ],
        ):
            assert (await gateway.post(chat(OTHER_QUESTION), *headers)).status == 200
            received = gateway.upstream.requests[-1]
            assert "sk-serac-" not in repr(received.headers)
            assert received.header("authorization") == (upstream_key and f"Bearer {upstream_key}")


@pytest.mark.parametrize("prefix", ["sk-serac-", "%73k-serac-", "%2573k%252dserac-"])
@pytest.mark.parametrize("target", ["/v1/models?api_key={}", "/v1/{}/models"])
async def test_a_key_in_the_url_is_refused_and_goes_no_further(
    locked: Gateway, keys: InMemoryApiKeyStore, target: str, prefix: str
) -> None:
    key = await stored_key(keys)
    written = target.format(key.replace("sk-serac-", prefix))
    response = await fetch(locked.url, written, None, bearer(key), method="GET")
    assert_refused(response, 400, "invalid_request", locked)


@pytest.mark.parametrize(
    "given", ["Bearer client's  own", "bEaReR x", "Basic dXNlcjpwdw==", "caf\u00e9", '"']
)
async def test_beside_x_serac_api_key_the_upstreams_authorization_passes_byte_for_byte(
    locked: Gateway, keys: InMemoryApiKeyStore, given: str
) -> None:
    key = await stored_key(keys)
    response = await locked.post(
        chat(OTHER_QUESTION), ("x-serac-api-key", key), ("Authorization", given), ("X-Api-Key", "theirs")
    )
    assert response.status == 200
    assert locked.upstream.requests[0].header("x-api-key") == "theirs"
    sent = locked.upstream.requests[0].header("authorization")
    assert sent is not None
    assert sent == given


def hostile_headers(key: str, other: str) -> list[list[Header]]:
    return [
        [bearer(key + "x" * 10_000)],
        [bearer("sk-serac-" + "A" * 10_000)],
        [bearer(key[:-1])],
        [bearer(key[:-1] + "\u00e9")],
        [bearer(f"{key}\x00")],
        [bearer(f"{key}, Bearer {key}")],
        [bearer(key), bearer(key)],
        [bearer("theirs"), bearer(key)],
        [("Authorization", f"Basic {key}")],
        [("Authorization", key)],
        [("Authorization", f"Bearer{key}")],
        [("x-serac-api-key", "")],
        [("x-serac-api-key", f"Bearer {key}")],
        [("x-serac-api-key", key), ("x-serac-api-key", key)],
        [("x-serac-api-key", other), bearer(key)],
        [("x-serac-api-key", key.replace("sk-serac-", "sk_serac_"))],
        [bearer(f"{key[:21]}-{other[22:]}")],
    ]


@pytest.mark.parametrize("case", range(17))
async def test_what_is_not_exactly_one_valid_key_is_refused_and_not_repeated(
    locked: Gateway, keys: InMemoryApiKeyStore, case: int
) -> None:
    key = await stored_key(keys)
    headers = hostile_headers(key, new_key().text)[case]
    try:
        response = await locked.post(chat(OTHER_QUESTION), *headers)
    except asyncio.IncompleteReadError:
        assert "\x00" in headers[0][1]  # the server closes on what is no HTTP
        return
    if response.status == 400 and not response.all("x-serac-route"):
        assert "\x00" in headers[0][1]
        return
    assert_refused(response, 401, "invalid_api_key", locked)
    assert key.rpartition("-")[2][:20] not in response.body.decode()


async def test_expired_and_revoked_keys_say_so_to_who_has_them_and_to_nobody_else(
    locked: Gateway, keys: InMemoryApiKeyStore
) -> None:
    new = new_key(expires_at=datetime.now(UTC) + timedelta(seconds=0.2))
    await keys.add(new.stored)
    assert (await locked.post(chat("x"), bearer(new.text))).status == 200
    await asyncio.sleep(0.2)
    assert "has expired" in (await locked.post(chat("x"), bearer(new.text))).json["error"]["message"]
    revoked = new_key()
    await keys.add(revoked.stored)
    await keys.revoke(revoked.stored.key.id, datetime.now(UTC))
    assert "was revoked" in (await locked.post(chat("x"), bearer(revoked.text))).json["error"]["message"]
    guess = revoked.text[:-1] + ("a" if revoked.text[-1] != "a" else "b")
    assert "revoked" not in (await locked.post(chat("x"), bearer(guess))).json["error"]["message"]


async def test_where_none_is_demanded_a_key_is_checked_and_kept_from_the_upstream(
    keys: InMemoryApiKeyStore,
) -> None:
    key = await stored_key(keys, namespaces=("acme",))
    async with running_gateway(key_store=keys) as gateway:
        await gateway.post(chat("x"), bearer("theirs"))
        assert gateway.upstream.requests[-1].header("authorization") == "Bearer theirs"
        await gateway.post(chat("x"), bearer(key))
        assert gateway.upstream.requests[-1].header("authorization") is None
        assert (await gateway.post(chat("x"), bearer(new_key().text))).status == 401
        refused = await gateway.post(chat("x"), bearer(key), ("x-serac-namespace", "umbra"))
        assert refused.status == 403
        assert len(gateway.upstream.requests) == 2


async def test_a_key_fires_the_edits_of_its_own_namespace_and_no_others(
    locked: Gateway, keys: InMemoryApiKeyStore
) -> None:
    await locked.add(EDITED_QUESTION, NEW_ANSWER, namespace="acme")
    acme, umbra = [await stored_key(keys, namespaces=(name,)) for name in ("acme", "umbra")]
    own = await locked.post(chat(EDITED_QUESTION), bearer(acme))
    assert own.one("x-serac-route") == "counterfactual"
    other = await locked.post(chat(EDITED_QUESTION), bearer(umbra), ("x-serac-debug", "true"))
    assert other.one("x-serac-route") == "base"
    assert other.one("x-serac-reason") == "no edits"
    assert not other.all("x-serac-edit-id")


@pytest.mark.parametrize(("role", "sees_it"), [(Role.CHAT, False), (Role.EDIT, True)])
async def test_the_decision_is_shown_to_keys_that_may_read_edits(
    locked: Gateway, keys: InMemoryApiKeyStore, role: Role, sees_it: bool
) -> None:
    await locked.add(EDITED_QUESTION, NEW_ANSWER)
    key = await stored_key(keys, role=role)
    for question in (EDITED_QUESTION, "Who is the mayor of Shelbyville?"):
        reply = await locked.post(chat(question), bearer(key), ("x-serac-debug", "true"))
        assert reply.all("x-serac-reason")
        names = ("x-serac-scope-probability", "x-serac-timings", "x-serac-edit-id", "x-serac-edit-version")
        assert any(reply.all(name) for name in names) is sees_it


async def test_two_namespaces_are_refused(locked: Gateway, keys: InMemoryApiKeyStore) -> None:
    key = await stored_key(keys, role=Role.EDIT, namespaces=("*",))
    for names in (("acme", "umbra"), ("acme", "acme")):
        headers = [("x-serac-namespace", name) for name in names]
        reply = await locked.post(chat(OTHER_QUESTION), bearer(key), *headers)
        assert_refused(reply, 400, "invalid_request", locked)
        edits = await fetch(locked.url, "/serac/v1/edits", None, bearer(key), *headers, method="GET")
        assert (edits.status, edits.json["field"]) == (400, "x-serac-namespace")


async def test_a_refused_namespace_does_not_reveal_whether_it_exists(
    locked: Gateway, keys: InMemoryApiKeyStore
) -> None:
    await locked.add(EDITED_QUESTION, NEW_ANSWER, namespace="acme")
    key = await stored_key(keys, namespaces=("umbra",))
    there, not_there = [
        await locked.post(chat(EDITED_QUESTION), bearer(key), ("x-serac-namespace", name))
        for name in ("acme", "none")
    ]
    assert_refused(there, 403, "permission_denied", locked)
    assert there.body.replace(b"acme", b"none") == not_there.body


async def test_a_spent_rate_is_a_429_that_says_when_and_nothing_else_ever_says_so(
    locked: Gateway, keys: InMemoryApiKeyStore
) -> None:
    key, other = await stored_key(keys, requests_per_minute=2), await stored_key(keys)

    async def limited_upstream(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(200, b"{}", ("x-ratelimit-remaining-requests", "7"))

    locked.upstream.script = limited_upstream
    for _ in range(2):
        passed = await locked.post(chat("x"), bearer(key))
        names = [name.lower() for name, _ in passed.headers if "ratelimit" in name.lower()]
        assert names == ["x-ratelimit-remaining-requests"]
    refused = await locked.post(chat("x"), bearer(key))
    assert refused.status == 429
    assert refused.json["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.one("retry-after")) <= 30
    assert refused.one("x-ratelimit-limit-requests") == "2"
    assert refused.one("x-ratelimit-remaining-requests") == "0"
    assert refused.one("x-ratelimit-reset-requests") == f"{refused.one('retry-after')}s"
    assert len(locked.upstream.requests) == 2
    assert (await locked.post(chat("x"), bearer(other))).status == 200
    async with AsyncOpenAI(base_url=f"{locked.url}/v1", api_key=key, max_retries=0) as client:
        with pytest.raises(openai.RateLimitError):
            await client.models.list()


async def test_no_secret_is_in_any_log_or_reply(
    locked: Gateway, keys: InMemoryApiKeyStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await locked.add(EDITED_QUESTION, NEW_ANSWER)  # so that requests are decided on, which is logged
    key, other = await stored_key(keys, requests_per_minute=3), new_key().text
    bodies = []
    for headers in ([bearer(key)], *hostile_headers(key, other), [bearer(key), ("x-serac-namespace", key)]):
        if "\x00" not in headers[0][1]:
            bodies.append((await locked.post(chat("x"), *headers)).body)
    for target in (f"/v1/{key}/..", f"/serac/v1/edits?cursor={key}", f"/serac/v1/{key}"):
        bodies.append((await fetch(locked.url, target, None, ("x-serac-api-key", key), method="GET")).body)
    bodies.append((await locked.post(chat("x"), bearer(key))).body)
    # server.py turns uvicorn's access log off, and pytest on again.
    logged = [record.getMessage() for record in caplog.records if record.name != "uvicorn.access"]
    written = "\n".join([*(body.decode() for body in bodies), *logged])
    for secret in (key.rpartition("-")[2], other.rpartition("-")[2]):
        assert secret not in written
    assert "rate_limit_exceeded" in written  # there was something to look through
    assert logged


async def test_with_the_gateways_upstream_key_a_tenant_reaches_inference_and_nobody_elses_things(
    keys: InMemoryApiKeyStore,
) -> None:
    """The upstream's account is all tenants' together."""
    allowed = GatewayConfig(upstream=UpstreamConfig(allowed_paths=AllowedPaths(admin=("GET /files",))))
    async with running_gateway(
        keys_required=True, key_store=keys, api_key="upstream-secret", config=allowed
    ) as gateway:
        chat_key, admin_key = [
            await stored_key(keys, role=role, namespaces=("acme",)) for role in (Role.CHAT, Role.ADMIN)
        ]
        for method, target in (
            ("GET", "/v1/files"),
            ("DELETE", "/v1/files/file-of-bolt"),
            ("GET", "/v1/responses/resp_of_bolt"),
            ("POST", "/v1/fine_tuning/jobs"),
            ("GET", "/v1/organization/api_keys"),
            ("GET", "/openai/deployments"),
        ):
            reply = await fetch(gateway.url, target, None, bearer(chat_key), method=method)
            assert_refused(reply, 403, "permission_denied", gateway)
            assert "upstream.allowed_paths.chat" in reply.json["error"]["message"]
        continued = {"model": "m", "input": "And then?", "previous_response_id": "resp_of_bolt"}
        reply = await gateway.post(continued, bearer(chat_key), target="/v1/responses")
        assert_refused(reply, 403, "permission_denied", gateway)
        assert (await gateway.post(chat(OTHER_QUESTION), bearer(chat_key))).status == 200
        for target in ("/v1/models", "/v1/models/org%2Fname"):
            assert (await fetch(gateway.url, target, None, bearer(chat_key), method="GET")).status == 200
        assert (await fetch(gateway.url, "/v1/files", None, bearer(admin_key), method="GET")).status == 200
        assert gateway.upstream.requests[-1].header("authorization") == "Bearer upstream-secret"
    async with running_gateway(keys_required=True, key_store=keys) as gateway:
        own = (("x-serac-api-key", chat_key), ("authorization", "Bearer the-clients-own"))
        assert (await fetch(gateway.url, "/v1/files", None, *own, method="GET")).status == 200
