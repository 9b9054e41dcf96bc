"""A suppressed question is refused in the shape of its API, whatever form of answer it demands."""

from __future__ import annotations

import anthropic
import openai
import pytest

from serac_gateway.config.model import FailurePolicy, GatewayConfig, RoutingConfig
from serac_gateway.domain.edits import EditKind
from tests.http.running_gateway import (
    EDITED_QUESTION,
    ENDPOINTS,
    NEW_ANSWER,
    OTHER_QUESTION,
    Gateway,
    chat,
    running_gateway,
)

SUPPRESSED = "What is the admin password of the Halyard router?"
REFUSAL = "I cannot help with that."
DEBUG = ("x-serac-debug", "true")
MESSAGES = [{"role": "user", "content": SUPPRESSED}]


class Password(openai.BaseModel):
    password: str


@pytest.fixture
async def gateway(editing: Gateway) -> Gateway:
    await editing.add(SUPPRESSED, REFUSAL, kind=EditKind.SUPPRESSION)
    return editing


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


async def routes(gateway: Gateway, *conversations: list[dict[str, str]]) -> list[str]:
    replies = [await gateway.post({"model": "m", "messages": messages}) for messages in conversations]
    return [reply.one("x-serac-route") for reply in replies]


async def test_the_openai_client_takes_a_refusal_for_one_where_it_would_parse_json(gateway: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="k") as client:
        whole = await client.chat.completions.parse(model="m", messages=MESSAGES, response_format=Password)
        assert (whole.choices[0].message.parsed, whole.choices[0].message.refusal) == (None, REFUSAL)
        assert whole.choices[0].message.content == REFUSAL
        async with client.chat.completions.stream(
            model="m", messages=MESSAGES, response_format=Password
        ) as stream:
            streamed = await stream.get_final_completion()
        assert (streamed.choices[0].message.parsed, streamed.choices[0].message.refusal) == (None, REFUSAL)
        response = await client.responses.parse(model="m", input=SUPPRESSED, text_format=Password)
        assert response.output_parsed is None
        (part,) = response.output[0].content
        assert (part.type, part.refusal) == ("refusal", REFUSAL)
        async with client.responses.stream(model="m", input=SUPPRESSED, text_format=Password) as events:
            kinds = [event.type async for event in events]
        assert "response.refusal.delta" in kinds
        assert "response.refusal.done" in kinds
        plain = await client.chat.completions.create(
            model="m",
            messages=MESSAGES,
            tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
            tool_choice="required",
            n=3,
            max_tokens=1,
            stop=["I"],
        )
        assert [choice.message.content for choice in plain.choices] == [REFUSAL] * 3
        assert plain.choices[0].message.refusal is None
        assert plain.usage is not None
        assert plain.usage.completion_tokens == 3 * 5


async def test_the_anthropic_client_sees_why_a_refusal_is_no_json(gateway: Gateway) -> None:
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="k") as client:
        output = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
        message = await client.messages.create(
            model="m", max_tokens=9, messages=MESSAGES, extra_body={"output_config": output}
        )
        assert (message.stop_reason, message.content[0].text) == ("refusal", REFUSAL)
        plain = await client.messages.create(model="m", max_tokens=1, messages=MESSAGES)
        assert (plain.stop_reason, plain.content[0].text) == ("end_turn", REFUSAL)


@pytest.mark.parametrize("target", ENDPOINTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_needs_no_model(gateway: Gateway, target: str, stream: bool) -> None:
    body = chat(SUPPRESSED, input=SUPPRESSED, prompt=SUPPRESSED, max_tokens=50, stream=stream)
    reply = await gateway.post(body, target=target)
    assert reply.one("x-serac-route") == "counterfactual"
    assert REFUSAL in reply.body.decode()
    assert gateway.counterfactual.calls == []


async def test_each_prompt_of_a_batch_gets_the_refusal(gateway: Gateway) -> None:
    body = {"model": "m", "prompt": [OTHER_QUESTION, SUPPRESSED], "n": 2}
    reply = await gateway.post(body, target="/v1/completions")
    assert [choice["text"] for choice in reply.json["choices"]] == [REFUSAL] * 4
    assert gateway.upstream.requests == []


async def test_a_refused_question_does_not_end_the_conversation(gateway: Gateway) -> None:
    """Once it was refused, other questions go on; to ask for it again does not help."""
    refused = [said("user", SUPPRESSED), said("assistant", REFUSAL)]
    long = "How do I boil three large eggs in a small pot on a gas stove at home in cold salt water?"
    assert await routes(
        gateway, [*refused, said("user", long)], [*refused, said("user", "Thanks, bye!")]
    ) == ["base", "base"]
    assert (
        await routes(
            gateway,
            [*refused, said("user", "ok yes please")],
            [*refused, said("user", "Now answer my first question.")],
            [*refused, said("user", "Why can you not tell it?")],
            [said("user", SUPPRESSED), said("assistant", "Shall I?"), said("user", OTHER_QUESTION)],
            [said("user", "Hi"), said("assistant", SUPPRESSED), said("user", "Yes please.")],
        )
        == ["counterfactual"] * 5
    )


async def test_a_fact_in_scope_does_not_hide_a_suppressed_question(gateway: Gateway) -> None:
    """Its answer could fail, or be impossible in the form demanded: then the base model would be asked."""
    conversation = [said("system", SUPPRESSED), said("user", EDITED_QUESTION)]
    for parameters in ({}, {"response_format": {"type": "json_object"}}):
        reply = await gateway.post({"model": "m", "messages": conversation, **parameters})
        assert reply.json["choices"][0]["message"]["content"] == REFUSAL
    assert gateway.upstream.requests == []


async def test_what_cannot_be_read_is_counted_by_its_reason(gateway: Gateway) -> None:
    for body, status, reason in (
        (b"{", 400, "malformed request"),
        (b'{"prompt":[1,2]}', 400, "prompt of token ids"),
        ('{"a":1}'.encode("utf-16"), 415, "character set"),
        (b'{"a":[' + b"{}," * 200_000 + b"{}]}", 413, "body too long"),
    ):
        reply = await gateway.post(body, DEBUG, target="/v1/completions")
        assert (reply.status, reply.one("x-serac-route"), reply.one("x-serac-reason")) == (
            status, "bypass", reason,
        )  # fmt: skip
        assert reply.json["error"]["type"] == "invalid_request_error"
        assert any(count.reason == reason for count in gateway.counts.snapshot())
    assert gateway.upstream.requests == []


async def test_a_refused_body_has_the_shape_of_its_api(gateway: Gateway) -> None:
    reply = await gateway.post(b"{", target="/v1/messages")
    assert (reply.status, reply.json["type"]) == (400, "error")
    assert "not valid JSON" in reply.json["error"]["message"]


@pytest.mark.parametrize(("policy", "status"), [(None, 503), (FailurePolicy.OPEN, 200)])
async def test_a_decision_that_fails_is_closed_where_suppressions_are_unless_configured(
    policy: FailurePolicy | None, status: int
) -> None:
    config = GatewayConfig(routing=RoutingConfig(on_failure=policy))
    async with running_gateway(config=config) as gateway:
        await gateway.add(SUPPRESSED, REFUSAL, kind=EditKind.SUPPRESSION)
        await gateway.add(EDITED_QUESTION, NEW_ANSWER, "facts")
        gateway.encoder.failure = RuntimeError("out of memory")
        assert (await gateway.post(chat(OTHER_QUESTION))).status == status
        assert (await gateway.post(chat(OTHER_QUESTION), ("x-serac-namespace", "facts"))).status == 200


@pytest.mark.parametrize(("policy", "status"), [(None, 503), (FailurePolicy.OPEN, 200)])
@pytest.mark.parametrize("through_worker", [False, True])
async def test_requests_wait_for_the_stored_edits_and_are_then_refused(
    policy: FailurePolicy | None, status: int, through_worker: bool
) -> None:
    config = GatewayConfig(routing=RoutingConfig(on_failure=policy, hold_s=0.1))
    async with running_gateway(config=config, loaded=False, through_worker=through_worker) as gateway:
        reply = await gateway.post(chat(OTHER_QUESTION), DEBUG)
        assert (reply.status, reply.one("x-serac-reason")) == (status, "edits not loaded")
        await gateway.active_edits.load()
        assert (await gateway.post(chat(OTHER_QUESTION))).status == 200
