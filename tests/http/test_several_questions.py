"""A message whose parts are in scope of several edits gets one reply with all their answers."""

from __future__ import annotations

import json

import openai
import pytest

from serac_gateway.config.model import CompositePolicy, GatewayConfig, RoutingConfig, UpstreamConfig
from serac_gateway.domain.edits import Edit, EditKind
from serac_gateway.testing import ScriptedCounterfactualModel
from tests.http.running_gateway import (
    EDITED_QUESTION,
    ENDPOINTS,
    NEW_ANSWER,
    OTHER_QUESTION,
    Gateway,
    chat,
    running_gateway,
)
from tests.http.test_declined_answers import body_of

DEBUG = ("x-serac-debug", "true")
SECOND_QUESTION, SECOND_ANSWER = "Where does the ferry to Capital City leave?", "From pier nine."
BOTH = f"{EDITED_QUESTION} {SECOND_QUESTION}"
JOINED = f"{NEW_ANSWER}\n{SECOND_ANSWER}"
BOTH_AND_OTHER = f"{BOTH} {OTHER_QUESTION}"


def in_context() -> GatewayConfig:
    """What is in force by default where an upstream is configured."""
    config = GatewayConfig(upstream=UpstreamConfig(url="http://127.0.0.1:1/v1"))
    assert config.routing_in_force.composite is CompositePolicy.IN_CONTEXT_FOR_SEVERAL
    return GatewayConfig(routing=config.routing_in_force)


async def with_both(gateway: Gateway) -> tuple[Edit, Edit]:
    second = await gateway.add(SECOND_QUESTION, SECOND_ANSWER)
    return await gateway.add(EDITED_QUESTION, NEW_ANSWER), second


@pytest.mark.parametrize("through_worker", [False, True])
@pytest.mark.parametrize("target", ENDPOINTS)
async def test_both_edits_answer_and_the_headers_name_them(target: str, through_worker: bool) -> None:
    async with running_gateway(through_worker=through_worker) as gateway:
        first, second = await with_both(gateway)
        reply = await gateway.post(body_of(target, BOTH), DEBUG, target=target)
        assert json.dumps(JOINED)[1:-1] in reply.body.decode()
        assert (reply.one("x-serac-route"), reply.one("x-serac-reason")) == (
            "counterfactual", "asks several things",
        )  # fmt: skip
        assert reply.all("x-serac-edit-id") == [first.id, second.id]
        assert gateway.upstream.requests == []
        if not through_worker:  # whose counts come later
            counted = {count.edit_id: count.applied for count in gateway.counts.edits()}
            assert counted == {first.id: 1, second.id: 1}


async def test_the_openai_client_streams_one_answer_after_the_other() -> None:
    async with running_gateway() as gateway:
        await with_both(gateway)
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="k") as client:
            chunks = [
                chunk
                async for chunk in await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": BOTH}], stream=True
                )
            ]
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(texts) == JOINED
    assert len([text for text in texts if text]) > 4
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]


async def test_the_limits_of_the_request_are_on_the_whole_reply() -> None:
    async with running_gateway() as gateway:
        await with_both(gateway)
        words = len(NEW_ANSWER.split())
        cut = await gateway.post(chat(BOTH, max_tokens=words + 2))
        assert cut.json["choices"][0]["finish_reason"] == "length"
        assert cut.json["choices"][0]["message"]["content"].startswith(f"{NEW_ANSWER}\nFrom")
        assert cut.json["usage"]["completion_tokens"] == words + 2
        stopped = await gateway.post(chat(BOTH, stop=["\n"], n=2))
        assert [choice["message"]["content"] for choice in stopped.json["choices"]] == [NEW_ANSWER] * 2


async def test_each_edit_is_asked_its_part_alone() -> None:
    async with running_gateway() as gateway:
        await with_both(gateway)
        await gateway.post(chat(BOTH))
        parts = [(edit.prompt, query.text) for edit, query in gateway.counterfactual.calls]
        assert parts == [(EDITED_QUESTION, EDITED_QUESTION), (SECOND_QUESTION, SECOND_QUESTION)]


async def test_where_a_part_is_in_no_edits_scope_the_base_model_answers_with_all_edits_stated() -> None:
    async with running_gateway(config=in_context()) as gateway:
        first, second = await with_both(gateway)
        reply = await gateway.post(chat(BOTH_AND_OTHER), DEBUG)
        assert (reply.one("x-serac-route"), reply.one("x-serac-reason")) == (
            "in_context", "asks several things",
        )  # fmt: skip
        assert reply.all("x-serac-edit-id") == [first.id, second.id]
        stated, own = json.loads(gateway.upstream.requests[0].body)["messages"]
        assert NEW_ANSWER in stated["content"]
        assert SECOND_ANSWER in stated["content"]
        assert own["content"] == BOTH_AND_OTHER


async def test_before_the_embedded_model_edits_answer_what_they_can_and_the_reason_says_so() -> None:
    assert GatewayConfig().routing_in_force.composite_of("default") is CompositePolicy.COUNTERFACTUAL_ONLY
    async with running_gateway() as gateway:
        await with_both(gateway)
        reply = await gateway.post(chat(BOTH_AND_OTHER), DEBUG)
        assert reply.one("x-serac-reason") == "answers in part"
        assert reply.json["choices"][0]["message"]["content"] == JOINED


@pytest.mark.parametrize("policy", list(CompositePolicy))
async def test_a_part_in_scope_of_a_suppression_refuses_all(policy: CompositePolicy) -> None:
    config = GatewayConfig(routing=RoutingConfig(composite=policy))
    async with running_gateway(config=config) as gateway:
        await with_both(gateway)
        await gateway.add(OTHER_QUESTION, "No comment.", kind=EditKind.SUPPRESSION)
        reply = await gateway.post(chat(BOTH_AND_OTHER))
        assert reply.json["choices"][0]["message"]["content"] == "No comment."
        assert gateway.upstream.requests == []


@pytest.mark.parametrize("stream", [False, True])
async def test_where_an_answer_is_declined_the_base_model_answers_all_with_the_edits_stated(
    stream: bool,
) -> None:
    """Known before the first byte, although the first edit answers its part."""
    model = ScriptedCounterfactualModel(declines=lambda edit, query: edit.target_new == SECOND_ANSWER)
    async with running_gateway(counterfactual=model) as gateway:
        await with_both(gateway)
        message = f"{EDITED_QUESTION} Now where does the ferry to Capital City leave?"
        reply = await gateway.post(chat(message, stream=stream), DEBUG)
        assert (reply.one("x-serac-route"), reply.one("x-serac-reason")) == ("in_context", "declined")
        stated, _ = json.loads(gateway.upstream.requests[0].body)["messages"]
        assert NEW_ANSWER in stated["content"]
