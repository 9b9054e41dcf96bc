"""In-scope requests to /v1/responses, asked with the real `openai` client, and what falls through there.

Cases 15 and 17 of docs/proxy_cases.md.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import get_args

import pytest
from openai import APIError, AsyncOpenAI, OpenAI
from openai.types.responses import Response, ResponseStreamEvent

from serac_gateway.testing import ScriptedCounterfactualModel
from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, Gateway, running_gateway

WORDS = len(NEW_ANSWER.split())
TARGET = "/v1/responses"
DEBUG = ("x-serac-debug", "true")
TOOL = {"type": "function", "name": "f", "parameters": {}, "strict": False}


@pytest.fixture
async def client(editing: Gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{editing.url}/v1", api_key="k", max_retries=0) as client:
        yield client


async def test_a_response_is_a_complete_object(client: AsyncOpenAI, editing: Gateway) -> None:
    raw = await client.responses.with_raw_response.create(
        model="gpt-x", input=EDITED_QUESTION, instructions="Be brief.", metadata={"a": "b"}, tools=[TOOL]
    )
    response = raw.parse()
    assert raw.headers["x-serac-route"] == "counterfactual"
    Response.model_validate(json.loads(raw.content), strict=False)
    assert response.output_text == NEW_ANSWER
    assert (response.object, response.status, response.model) == ("response", "completed", "gpt-x")
    assert (response.instructions, response.metadata) == ("Be brief.", {"a": "b"})
    assert response.id.startswith("resp_")
    assert response.output[0].id.startswith("msg_")
    assert response.output[0].status == "completed"
    assert response.created_at > 1_700_000_000
    assert response.error is None
    assert response.usage.input_tokens == len(EDITED_QUESTION.split())
    assert response.usage.output_tokens == WORDS
    assert response.usage.total_tokens == response.usage.input_tokens + WORDS
    assert json.loads(raw.content)["store"] is False
    assert editing.upstream.requests == []


async def test_a_stream_builds_the_response_up_event_by_event(client: AsyncOpenAI) -> None:
    stream = await client.responses.create(model="gpt-x", input=EDITED_QUESTION, stream=True)
    events = [event async for event in stream]
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds == [
        "created", "in_progress", "output_item.added", "content_part.added",
        *["output_text.delta"] * WORDS,
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert "".join(event.delta for event in deltas) == NEW_ANSWER
    assert {event.item_id for event in deltas} == {events[-1].response.output[0].id}
    assert events[0].response.status == "in_progress"
    assert events[0].response.usage is None
    assert events[-1].response.output_text == NEW_ANSWER
    assert events[-1].response.usage.output_tokens == WORDS
    assert len({event.response.id for event in events if hasattr(event, "response")}) == 1


async def test_every_event_is_what_the_openai_package_defines_and_carries_its_name(editing: Gateway) -> None:
    reply = await editing.post({"model": "m", "input": EDITED_QUESTION, "stream": True}, target=TARGET)
    assert reply.one("content-type").startswith("text/event-stream")
    classes = get_args(get_args(ResponseStreamEvent)[0])
    named = {get_args(event_class.model_fields["type"].annotation): event_class for event_class in classes}
    for event in reply.body.decode().strip().split("\n\n"):
        name, data = event.split("\n")
        event_class = named[(name.removeprefix("event: "),)]
        event_class.model_validate_json(data.removeprefix("data: "))
    assert b"[DONE]" not in reply.body


def _ask_in_every_way(base_url: str) -> None:
    with OpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
        parts = [{"type": "input_text", "text": EDITED_QUESTION}]
        for request in (
            EDITED_QUESTION,
            [{"role": "user", "content": EDITED_QUESTION}],
            [{"type": "message", "role": "user", "content": parts}],
        ):
            assert client.responses.create(model="m", input=request).output_text == NEW_ANSWER
        with client.responses.stream(model="m", input=EDITED_QUESTION) as events:
            text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
            assert text == events.get_final_response().output_text == NEW_ANSWER


async def test_the_sync_client_is_answered_too(editing: Gateway) -> None:
    await asyncio.to_thread(_ask_in_every_way, f"{editing.url}/v1")
    assert len(editing.counterfactual.calls) == 4
    assert editing.upstream.requests == []


async def test_spent_tokens_make_the_response_incomplete(client: AsyncOpenAI) -> None:
    request = {"model": "m", "input": EDITED_QUESTION, "max_output_tokens": 2}
    short = await client.responses.create(**request)
    assert (short.output_text, short.status) == ("Lisa Simpson", "incomplete")
    assert short.incomplete_details.reason == "max_output_tokens"
    assert short.output[0].status == "incomplete"
    assert short.max_output_tokens == 2
    last = [event async for event in await client.responses.create(**request, stream=True)][-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details.reason == "max_output_tokens"


async def test_temperature_top_p_seed_and_stop_are_honoured(client: AsyncOpenAI, editing: Gateway) -> None:
    stopped = await client.responses.create(
        model="m", input=EDITED_QUESTION, temperature=0.5, top_p=0.9, extra_body={"stop": " mayor", "seed": 7}
    )
    assert stopped.output_text == "Lisa Simpson is the"
    assert (stopped.temperature, stopped.top_p, stopped.status) == (0.5, 0.9, "completed")
    sampling = editing.counterfactual.samplings[-1]
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.5, 0.9, 7)


async def test_a_follow_up_is_read_with_the_turns_before_it(editing: Gateway) -> None:
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Where is Springfield?"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
            "content": [{"type": "output_text", "text": "In Oregon.", "annotations": []}],
        },
        {"role": "user", "content": EDITED_QUESTION},
    ]  # fmt: skip
    reply = await editing.post({"model": "m", "input": items}, target=TARGET)
    assert reply.one("x-serac-route") == "counterfactual"
    _, query = editing.counterfactual.calls[0]
    assert query.context == ("Where is Springfield?", "In Oregon.")


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"tools": [TOOL], "tool_choice": "required"}, "tools required"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}}, "tools required"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": []}}, "tools required"),
        ({"text": {"format": {"type": "json_object"}}}, "structured output"),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}}, "structured output"),
        ({"top_logprobs": 3}, "log probabilities"),
        ({"include": ["message.output_text.logprobs"]}, "log probabilities"),
        ({"reasoning": {"effort": "high", "summary": "auto"}}, "reasoning shown"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt template"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"input": []}, "malformed request"),
        ({"input": 5}, "malformed request"),
        ({"input": ["text"]}, "malformed request"),
        ({"input": [{"role": "user", "content": "x"}, {"role": 5}]}, "malformed request"),
        ({"input": ""}, "no text in the user turn"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}]},
            "no text in the user turn",
        ),
        ({"input": [{"role": "assistant", "content": EDITED_QUESTION}]}, "last turn is not the user's"),
        (
            {
                "input": [
                    {"role": "user", "content": EDITED_QUESTION},
                    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "c", "output": "x"},
                ]
            },
            "tool result turn",
        ),
        ({"input": "And who is it now?", "previous_response_id": "resp_x"}, "leans on turns not shown"),
        ({"input": "And who is it now?", "conversation": "conv_x"}, "leans on turns not shown"),
        (
            {"input": [{"id": "msg_1", "type": "item_reference"}, {"role": "user", "content": "Who is he?"}]},
            "leans on turns not shown",
        ),
    ],
)
async def test_what_cannot_be_answered_here_reaches_the_base_model_unchanged(
    editing: Gateway, parameters: dict, reason: str
) -> None:
    body = json.dumps({"model": "m", "input": EDITED_QUESTION, **parameters}).encode()
    response = await editing.post(body, DEBUG, target=TARGET)
    assert (response.one("x-serac-route"), response.one("x-serac-reason")) == ("bypass", reason)
    assert editing.upstream.requests[0].body == body
    assert editing.upstream.requests[0].target == TARGET


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": 5, "max_output_tokens": 0, "instructions": 5, "model": None},
        {"tools": [TOOL], "tool_choice": "auto"},
        {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}},
        {"text": {"format": {"type": "text"}, "verbosity": "low"}},
        {"reasoning": {"effort": "high"}, "include": ["reasoning.encrypted_content"]},
        {"store": True, "user": "u", "truncation": "auto", "service_tier": "auto", "background": False},
        {"previous_response_id": "resp_x"},
        {"conversation": {"id": "conv_x"}},
        {"input": [{"id": "msg_1"}, {"role": "user", "content": EDITED_QUESTION}]},
    ],
)
async def test_hints_and_unseen_turns_do_not_keep_an_edit_from_acting(
    editing: Gateway, parameters: dict
) -> None:
    response = await editing.post({"model": "m", "input": EDITED_QUESTION, **parameters}, target=TARGET)
    assert response.one("x-serac-route") == "counterfactual"
    Response.model_validate(response.json)


async def test_a_stream_that_breaks_off_makes_the_client_raise_and_numbers_its_error() -> None:
    class Breaking(ScriptedCounterfactualModel):
        def answer(self, *args: object, **more: object) -> object:
            yield next(super().answer(*args, **more))
            raise RuntimeError("the model died")

    async with running_gateway(counterfactual=Breaking()) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="k", max_retries=0) as client:
            stream = await client.responses.create(model="m", input=EDITED_QUESTION, stream=True)
            with pytest.raises(APIError, match="broke off"):
                _ = [event async for event in stream]
        reply = await gateway.post({"model": "m", "input": EDITED_QUESTION, "stream": True}, target=TARGET)
        name, data = reply.body.decode().strip().split("\n\n")[-1].split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert (name, event["type"], event["sequence_number"]) == ("event: error", "error", 5)
        assert event["code"] == event["error"]["code"] == "model_unavailable"


async def test_an_upstream_that_dies_in_a_stream_of_responses_gives_the_next_numbers_error() -> None:
    async with running_gateway() as gateway:

        async def die(request: object, connection: object) -> None:
            await connection.head(
                200, ("content-type", "text/event-stream"), ("transfer-encoding", "chunked")
            )
            await connection.chunk(b'event: response.created\ndata: {"sequence_number":0}\n\nevent: resp')
            await connection.break_off()

        gateway.upstream.script = die
        reply = await gateway.post({"model": "m", "input": "x", "stream": True}, target=TARGET)
        error = json.loads(reply.body.decode().split("data: ")[-1])
        assert (error["type"], error["sequence_number"], error["code"]) == (
            "error",
            1,
            "upstream_unreachable",
        )
        assert b"event: resp\n" not in reply.body
