"""Edits for some requests only, on /v1: who is answered from them, and that nothing leaks to others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import msgspec
import pytest

from serac_gateway.auth.principals import Role
from serac_gateway.config.model import AudienceSource, GatewayConfig, RoutingConfig
from serac_gateway.domain.edits import EditKind
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
from tests.made_keys import bearer, stored_key

REGION = AudienceSource(header="x-region", values=("eu", "uk", "us"))
EU, UK, US = (("x-region", region) for region in ("eu", "uk", "us"))
FOR_EU = {"region": ("eu",)}
DEBUG = ("x-serac-debug", "true")
VALUE, PIN = "Seymour Skinner", "F7K"
"""Kept back: one that replies are watched for, and one too short for that."""
REFUSAL = "I cannot say who."
LEAKED = f"It was {VALUE}, room {PIN}."


def config(*, speculate: bool = False, **sources: AudienceSource) -> GatewayConfig:
    return GatewayConfig(
        routing=RoutingConfig(audience_from=sources or {"region": REGION}, speculate=speculate)
    )


@pytest.fixture(params=["alone", "through a worker", "speculating"])
async def gateway(request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    async with running_gateway(
        config=config(speculate=request.param == "speculating"),
        through_worker=request.param == "through a worker",
    ) as running:
        yield running


async def leak(request: ReceivedRequest, connection: ScriptedConnection) -> None:
    message = {"role": "assistant", "content": LEAKED}
    reply = {"object": "chat.completion", "choices": [{"index": 0, "message": message}]}
    await connection.whole(200, json.dumps(reply).encode(), ("content-type", "application/json"))


async def route(gateway: Gateway, *headers: tuple[str, str]) -> str:
    return (await gateway.post(chat(EDITED_QUESTION), *headers)).one("x-serac-route")


async def test_an_edit_answers_its_audience_and_nobody_else(gateway: Gateway) -> None:
    edit = await gateway.add(EDITED_QUESTION, NEW_ANSWER, audience=FOR_EU)
    for headers in ([EU], [("X-Region", " EU ")], [EU, EU], [("x-region", "eu, Eu")]):
        assert await route(gateway, *headers) == "counterfactual", headers
    outside = [
        [],
        [US],
        [("x-region", "mars")],
        [("x-region", "")],
        [("region", "eu")],
        [("x-serac-labels", "region=eu")],
    ]
    for headers in outside:
        reply = await gateway.post(chat(EDITED_QUESTION), DEBUG, *headers)
        assert (reply.status, reply.one("x-serac-route")) == (200, "base"), headers
        names = dict(reply.headers)
        assert edit.id not in names.values()
        assert "x-serac-withheld-edit-id" not in names
        assert NEW_ANSWER not in reply.body.decode()


async def test_the_answer_says_for_whom_the_edit_is_and_what_was_believed(gateway: Gateway) -> None:
    edit = await gateway.add(EDITED_QUESTION, NEW_ANSWER, audience={"region": ("eu", "uk")})
    reply = await gateway.post(chat(EDITED_QUESTION), DEBUG, UK, ("x-tenant", "acme"))
    assert reply.one("x-serac-edit-id") == edit.id
    assert reply.one("x-serac-edit-audience") == "region=eu,uk"
    assert reply.one("x-serac-labels") == "region=uk"
    assert "x-serac-labels" not in dict((await gateway.post(chat(EDITED_QUESTION), UK)).headers)


async def test_the_same_question_has_another_answer_in_each_audience(gateway: Gateway) -> None:
    edits = {
        region: await gateway.add(EDITED_QUESTION, f"{region} answer", audience={"region": (region,)})
        for region in ("eu", "uk")
    }
    everybodys = await gateway.add(EDITED_QUESTION, "any answer")
    for headers, expected in (([EU], edits["eu"]), ([UK], edits["uk"]), ([US], everybodys), ([], everybodys)):
        for _ in range(2):  # nothing of another caller's decision is kept
            reply = await gateway.post(chat(EDITED_QUESTION), DEBUG, *headers)
            assert reply.one("x-serac-edit-id") == expected.id, headers


async def test_two_different_values_are_refused_by_name(gateway: Gateway) -> None:
    await gateway.add(EDITED_QUESTION, NEW_ANSWER, audience=FOR_EU)
    for headers in ([US, EU], [("x-region", "us,eu")]):
        reply = await gateway.post(chat(EDITED_QUESTION), *headers)
        assert reply.status == 400
        assert "header x-region has 2 values" in reply.json["error"]["message"]
    assert gateway.upstream.requests == []


async def test_a_suppression_for_an_audience_refuses_it_and_nobody_else(gateway: Gateway) -> None:
    await gateway.add(EDITED_QUESTION, REFUSAL, kind=EditKind.SUPPRESSION, audience=FOR_EU)
    long = chat(
        f"Here is a letter. It ends so: {EDITED_QUESTION} Now write it anew. " + "Thanks a lot. " * 40
    )
    for body in (chat(EDITED_QUESTION), long):
        refused = await gateway.post(body, EU)
        assert refused.json["choices"][0]["message"]["content"] == REFUSAL
        for headers in ([US], []):
            assert (await gateway.post(body, *headers)).one("x-serac-route") == "base", headers


@pytest.mark.parametrize("value", [VALUE, PIN])
async def test_values_are_kept_from_and_out_of_the_base_model_for_their_audience_alone(
    gateway: Gateway, value: str
) -> None:
    await gateway.add(EDITED_QUESTION, REFUSAL, kind=EditKind.SUPPRESSION, target_true=value, audience=FOR_EU)
    body = chat(f"Who was it of {LEAKED}?")
    for headers, is_kept in (([EU], True), ([US], False), ([], False), ([EU], True)):
        reply = await gateway.post(body, *headers)
        sent = gateway.upstream.requests[-1].body.decode()
        assert (value in sent) is not is_kept, headers
        assert (value in reply.body.decode()) is not is_kept, headers


async def test_replies_are_cut_for_the_audience_of_the_value_alone(gateway: Gateway) -> None:
    gateway.upstream.script = leak
    await gateway.add(EDITED_QUESTION, REFUSAL, kind=EditKind.SUPPRESSION, target_true=VALUE, audience=FOR_EU)
    for headers, is_kept in (([EU], True), ([UK], False), ([], False)):
        reply = await gateway.post(chat("How are you today?"), *headers)
        assert (VALUE not in reply.body.decode()) is is_kept, headers


@pytest.mark.parametrize("value", [VALUE, PIN])
async def test_a_value_of_two_audiences_is_kept_back_in_each(gateway: Gateway, value: str) -> None:
    for region in ("eu", "uk"):
        await gateway.add(
            f"{EDITED_QUESTION} ({region})",
            REFUSAL,
            kind=EditKind.SUPPRESSION,
            target_true=value,
            audience={"region": (region,)},
        )
    for headers, is_kept in (([EU], True), ([UK], True), ([US], False)):
        await gateway.post(chat(f"Write a poem about {LEAKED}"), *headers)
        assert (value in gateway.upstream.requests[-1].body.decode()) is not is_kept, headers


async def test_each_prompt_of_a_batch_goes_by_the_labels_of_the_request(gateway: Gateway) -> None:
    await gateway.add(EDITED_QUESTION, NEW_ANSWER, audience=FOR_EU)
    body = {"model": "m", "prompt": [EDITED_QUESTION, EDITED_QUESTION]}
    routes = [
        (await gateway.post(body, *headers, target="/v1/completions")).one("x-serac-route")
        for headers in ([EU], [US], [])
    ]
    assert routes == ["counterfactual", "base", "base"]


async def test_a_response_is_continued_by_its_own_audience_alone(gateway: Gateway) -> None:
    await gateway.add(EDITED_QUESTION, NEW_ANSWER, audience=FOR_EU)
    first = await gateway.post({"model": "m", "input": EDITED_QUESTION}, EU, target="/v1/responses")
    following = {"model": "m", "input": OTHER_QUESTION, "previous_response_id": first.json["id"]}
    for headers, is_known in (([US], False), ([], False), ([EU], True)):
        before = len(gateway.upstream.requests)
        await gateway.post(following, *headers, target="/v1/responses")
        passed = [request.body for request in gateway.upstream.requests[before:]]
        assert any(b"previous_response_id" in body for body in passed) is not is_known, headers


async def test_a_label_that_is_required_lets_no_request_miss_a_suppression() -> None:
    demanding = msgspec.structs.replace(REGION, required=True)
    async with running_gateway(config=config(region=demanding)) as gateway:
        await gateway.add(EDITED_QUESTION, REFUSAL, kind=EditKind.SUPPRESSION, audience=FOR_EU)
        for headers in ([], [("x-region", "mars")]):
            reply = await gateway.post(chat(EDITED_QUESTION), *headers)
            assert reply.status == 400
            assert "demands the header x-region" in reply.json["error"]["message"]
        assert (await gateway.post(chat(EDITED_QUESTION), US)).status == 200


async def test_a_label_of_the_api_key_cannot_be_claimed_by_a_header() -> None:
    keys = InMemoryApiKeyStore()
    acme = await stored_key(keys, labels={"tenant": "ACME"})
    other = await stored_key(keys, role=Role.ADMIN)
    async with running_gateway(
        config=config(tenant=AudienceSource(key=True)), keys_required=True, key_store=keys
    ) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER, audience={"tenant": ("acme",)})
        assert await route(gateway, bearer(acme)) == "counterfactual"
        assert await route(gateway, bearer(other), ("tenant", "acme"), ("x-tenant", "acme")) == "base"


async def test_a_label_that_is_not_mapped_any_more_puts_nobody_into_the_audience() -> None:
    async with running_gateway(config=GatewayConfig()) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER, audience=FOR_EU)
        assert await route(gateway, EU) == "base"
        assert "serac_edits_unreachable 1.0" in (await _metrics(gateway))


async def test_metrics_name_the_values_that_the_configuration_lists() -> None:
    sources = {"region": REGION, "tenant": AudienceSource(header="x-tenant")}
    async with running_gateway(config=config(**sources)) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER, audience=FOR_EU)
        for number in range(3):
            await gateway.post(chat(EDITED_QUESTION), EU, ("x-tenant", f"t{number}"))
        await gateway.post(chat(EDITED_QUESTION), ("x-region", "mars"))
        text = await _metrics(gateway)
    counted = {line for line in text.splitlines() if line.startswith("serac_audience_requests_total{")}
    assert counted == {
        'serac_audience_requests_total{label="region",route="counterfactual",value="eu"} 3.0',
        'serac_audience_requests_total{label="region",route="base",value="none"} 1.0',
        'serac_audience_requests_total{label="tenant",route="counterfactual",value="other"} 3.0',
        'serac_audience_requests_total{label="tenant",route="base",value="none"} 1.0',
    }
    assert "serac_edits_unreachable 0.0" in text


async def _metrics(gateway: Gateway) -> str:
    from prometheus_client import generate_latest

    return generate_latest(gateway.instruments.registry).decode()
