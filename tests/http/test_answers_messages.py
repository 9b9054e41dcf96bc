"""In-scope requests to /v1/messages, asked with the real `anthropic` client, and what falls through there.

Cases 15 and 17 of docs/proxy_cases.md.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import get_args

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message, RawMessageStreamEvent

from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedCounterfactualModel
from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, Gateway, running_gateway

WORDS = len(NEW_ANSWER.split())
TARGET = "/v1/messages"
DEBUG = ("x-serac-debug", "true")
TOOL = {"name": "f", "input_schema": {"type": "object"}}
IMAGE = {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}
MESSAGES = [{"role": "user", "content": EDITED_QUESTION}]
REQUEST = {"model": "claude-x", "max_tokens": 100, "messages": MESSAGES}


@pytest.fixture
async def client(editing: Gateway) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=editing.url, api_key="k", max_retries=0) as client:
        yield client


async def test_a_message_is_a_complete_object(client: AsyncAnthropic, editing: Gateway) -> None:
    raw = await client.messages.with_raw_response.create(**REQUEST, system="Be brief.")
    message = await raw.parse()
    assert raw.headers["x-serac-route"] == "counterfactual"
    written = json.loads(await raw.read())
    Message.model_validate(written)
    assert written["content"] == [{"type": "text", "text": NEW_ANSWER}], "no null where the API has nothing"
    assert [(block.type, block.text) for block in message.content] == [("text", NEW_ANSWER)]
    assert (message.type, message.role, message.model) == ("message", "assistant", "claude-x")
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.id.startswith("msg_")
    assert message.usage.input_tokens == len(EDITED_QUESTION.split())
    assert message.usage.output_tokens == WORDS
    assert raw.headers["request-id"] == raw.headers["x-request-id"]
    assert editing.upstream.requests == []


async def test_a_stream_builds_the_message_up_event_by_event(client: AsyncAnthropic) -> None:
    events = [event async for event in await client.messages.create(**REQUEST, stream=True)]
    assert [event.type for event in events] == [
        "message_start", "content_block_start", *["content_block_delta"] * WORDS, "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert events[0].message.usage.input_tokens == len(EDITED_QUESTION.split())
    assert "".join(e.delta.text for e in events if e.type == "content_block_delta") == NEW_ANSWER
    assert events[-2].delta.stop_reason == "end_turn"
    assert events[-2].usage.output_tokens == WORDS


async def test_every_event_is_what_the_anthropic_package_defines_and_carries_its_name(
    editing: Gateway,
) -> None:
    reply = await editing.post({**REQUEST, "stream": True}, target=TARGET)
    assert reply.one("content-type").startswith("text/event-stream")
    classes = get_args(get_args(RawMessageStreamEvent)[0])
    named = {get_args(event_class.model_fields["type"].annotation): event_class for event_class in classes}
    for event in reply.body.decode().strip().split("\n\n"):
        name, data = event.split("\n")
        if name == "event: ping":
            assert data == 'data: {"type":"ping"}'
        else:
            event_class = named[(name.removeprefix("event: "),)]
            event_class.model_validate_json(data.removeprefix("data: "))


def _ask_in_every_way(base_url: str) -> None:
    with Anthropic(base_url=base_url, api_key="k", max_retries=0) as client:
        for content in (EDITED_QUESTION, [IMAGE, {"type": "text", "text": EDITED_QUESTION}]):
            messages = [{"role": "user", "content": content}]
            whole = client.messages.create(model="m", max_tokens=100, messages=messages)
            assert whole.content[0].text == NEW_ANSWER
        with client.messages.stream(**REQUEST) as stream:
            assert "".join(stream.text_stream) == NEW_ANSWER
            assert stream.get_final_message().usage.output_tokens == WORDS


async def test_the_sync_client_is_answered_too(editing: Gateway) -> None:
    await asyncio.to_thread(_ask_in_every_way, editing.url)
    assert len(editing.counterfactual.calls) == 3
    assert editing.upstream.requests == []


async def test_max_tokens_and_stop_sequences_are_honoured_and_named(client: AsyncAnthropic) -> None:
    short = await client.messages.create(**REQUEST | {"max_tokens": 2})
    assert (short.content[0].text, short.stop_reason) == ("Lisa Simpson", "max_tokens")
    request = {**REQUEST, "stop_sequences": ["zzz", " mayor"]}
    stopped = await client.messages.create(**request)
    assert stopped.content[0].text == "Lisa Simpson is the"
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " mayor")
    async with client.messages.stream(**request) as stream:
        final = await stream.get_final_message()
    assert (final.stop_reason, final.stop_sequence) == ("stop_sequence", " mayor")
    unmet = await client.messages.create(**REQUEST, stop_sequences=["zzz"])
    assert (unmet.stop_reason, unmet.stop_sequence) == ("end_turn", None)


async def test_temperature_and_top_p_are_honoured(client: AsyncAnthropic, editing: Gateway) -> None:
    await client.messages.create(**REQUEST, extra_body={"temperature": 0.5, "top_p": 0.9})
    sampling = editing.counterfactual.samplings[-1]
    assert (sampling.temperature, sampling.top_p) == (0.5, 0.9)


async def test_a_follow_up_is_read_with_the_turns_before_it(editing: Gateway) -> None:
    messages = [
        {"role": "user", "content": "Where is Springfield?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "In Oregon."},
            ],
        },
        *MESSAGES,
    ]
    await editing.post({**REQUEST, "messages": messages}, target=TARGET)
    _, query = editing.counterfactual.calls[0]
    assert query.context == ("Where is Springfield?", "In Oregon.")


TOOL_TURNS = [
    *MESSAGES,
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": "x"},
            {"type": "text", "text": EDITED_QUESTION},
        ],
    },
]


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"tools": [TOOL], "tool_choice": {"type": "any"}}, "tools required"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f"}}, "tools required"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}}, "structured output"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "reasoning shown"),
        ({"container": "c"}, "container"),
        ({"messages": TOOL_TURNS}, "tool result turn"),
        ({"messages": [*MESSAGES, {"role": "assistant", "content": "{"}]}, "last turn is not the user's"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "no text in the user turn"),
        ({"messages": "hello"}, "malformed request"),
    ],
)
async def test_what_cannot_be_answered_here_reaches_the_base_model_unchanged(
    editing: Gateway, parameters: dict, reason: str
) -> None:
    body = json.dumps(REQUEST | parameters).encode()
    response = await editing.post(body, DEBUG, target=TARGET)
    assert (response.one("x-serac-route"), response.one("x-serac-reason")) == ("bypass", reason)
    assert editing.upstream.requests[0].body == body
    assert editing.upstream.requests[0].target == TARGET


@pytest.mark.parametrize(
    "parameters",
    [
        {"tools": [TOOL], "tool_choice": {"type": "auto"}},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
        {"messages": [*MESSAGES, {"role": "assistant", "content": "The"}]},
        {"max_tokens": None, "temperature": 1.5, "system": 5, "stop_sequences": "x"},
        {"max_tokens": 0},
        {"thinking": {"type": "disabled"}, "top_k": 5, "metadata": {"user_id": "u"}},
        {"system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
    ],
)
async def test_hints_and_permissions_do_not_keep_an_edit_from_acting(
    editing: Gateway, parameters: dict
) -> None:
    response = await editing.post(REQUEST | parameters, target=TARGET)
    assert response.one("x-serac-route") == "counterfactual"


async def test_other_calls_below_messages_pass(editing: Gateway) -> None:
    body = json.dumps({"model": "m", "messages": MESSAGES}).encode()
    for target in ("/v1/messages/count_tokens", "/v1/messages/batches"):
        response = await editing.post(body, target=target)
        assert response.one("x-serac-route") == "bypass"
        assert (editing.upstream.requests[-1].target, editing.upstream.requests[-1].body) == (target, body)


async def test_errors_of_our_own_are_anthropics(editing: Gateway) -> None:
    reply = await editing.post(REQUEST, ("x-serac-namespace", "Not OK"), target=TARGET)
    assert reply.status == 400
    assert reply.json["type"] == "error"
    assert reply.json["error"]["type"] == "invalid_request_error"
    assert "'Not OK'" in reply.json["error"]["message"]
    assert reply.json["request_id"] == reply.one("request-id") == reply.one("x-request-id")


@pytest.mark.parametrize(("path", "header"), [(TARGET, []), ("/v1/models", [("anthropic-version", "1")])])
async def test_an_upstream_that_is_down_is_answered_with_anthropics_error(
    path: str, header: list[tuple[str, str]]
) -> None:
    async with running_gateway(upstream_url="http://127.0.0.1:9/v1") as gateway:
        reply = await gateway.post(REQUEST, *header, target=path)
        assert (reply.status, reply.json["error"]["type"]) == (502, "api_error")
        async with AsyncAnthropic(base_url=gateway.url, api_key="k", max_retries=0) as client:
            with pytest.raises(anthropic.InternalServerError, match="cannot be reached"):
                await client.messages.create(**REQUEST)


async def test_a_stream_that_breaks_off_makes_the_client_raise() -> None:
    class Breaking(ScriptedCounterfactualModel):
        def answer(self, *args: object, **more: object) -> object:
            yield next(super().answer(*args, **more))
            raise RuntimeError("the model died")

    async with running_gateway(counterfactual=Breaking()) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        async with AsyncAnthropic(base_url=gateway.url, api_key="k", max_retries=0) as client:
            stream = await client.messages.create(**REQUEST, stream=True)
            with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
                _ = [event async for event in stream]


async def test_an_upstream_that_dies_in_a_stream_of_messages_makes_the_client_raise(editing: Gateway) -> None:
    async def die(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, ("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))
        await connection.chunk(b'event: ping\ndata: {"type": "ping"}\n\nevent: content_bl')
        await connection.break_off()

    editing.upstream.script = die
    async with AsyncAnthropic(base_url=editing.url, api_key="k", max_retries=0) as client:
        messages = [{"role": "user", "content": "Hello there"}]
        stream = await client.messages.create(model="m", max_tokens=5, messages=messages, stream=True)
        with pytest.raises(anthropic.APIStatusError, match="api_error"):
            _ = [event async for event in stream]


async def test_a_stream_that_said_message_stop_ends_without_an_error(editing: Gateway) -> None:
    whole = b'event: message_delta\ndata: {}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'

    async def stop_then_die(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, ("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))
        await connection.chunk(whole)
        await connection.break_off()

    editing.upstream.script = stop_then_die
    reply = await editing.post({**REQUEST, "messages": [{"role": "user", "content": "Hi"}]}, target=TARGET)
    assert (reply.body, reply.complete) == (whole, True)
