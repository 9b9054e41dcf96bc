"""Going on with `previous_response_id` from a response that the upstream never made."""

from __future__ import annotations

import json

import pytest
from openai import AsyncOpenAI

from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.data_plane.response_memory import MAX_REQUEST_BYTES, ResponseMemory
from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, Gateway

TARGET = "/v1/responses"
OTHER_QUESTION = (
    "How do I boil an egg for breakfast where the only pan in the kitchen is tiny, the stove is electric, and"
    " nobody owns a clock or a watch?"
)
"""Long enough to be read without the turns before."""
TURN = {"role": "user", "content": EDITED_QUESTION}
SAID = {"role": "assistant", "content": NEW_ANSWER}
NEXT = {"role": "user", "content": OTHER_QUESTION}


async def respond(gateway: Gateway, question: object, *headers: tuple[str, str], **more: object) -> str:
    reply = await gateway.post({"model": "m", "input": question, **more}, *headers, target=TARGET)
    assert reply.one("x-serac-route") == "counterfactual"
    return reply.json["id"]


def last_body(gateway: Gateway) -> dict:
    return json.loads(gateway.upstream.requests[-1].body)


@pytest.mark.parametrize("question", [EDITED_QUESTION, [TURN]])
async def test_the_upstream_gets_the_turns_that_it_does_not_know(editing: Gateway, question: object) -> None:
    first = await respond(editing, question)
    body = b'{"model":"m","previous_response_id":"%s","input":"%s","x" : 1e-7}'
    await editing.post(body % (first.encode(), OTHER_QUESTION.encode()), target=TARGET)
    assert last_body(editing) == {"model": "m", "input": [TURN, SAID, NEXT], "x": 1e-7}
    assert editing.upstream.requests[-1].body.endswith(b',"x":1e-7}')


async def test_a_chain_goes_on_from_the_upstreams_own_response(editing: Gateway) -> None:
    first = await respond(editing, EDITED_QUESTION, previous_response_id="resp_upstream")
    second = await respond(editing, [TURN], previous_response_id=first)
    await editing.post({"model": "m", "previous_response_id": second, "input": [NEXT]}, target=TARGET)
    assert last_body(editing) == {
        "model": "m",
        "previous_response_id": "resp_upstream",
        "input": [TURN, SAID, TURN, SAID, NEXT],
    }


async def test_a_follow_up_is_decided_with_the_turns_that_were_answered_here(editing: Gateway) -> None:
    first = await respond(editing, EDITED_QUESTION)
    request = {
        "model": "m",
        "previous_response_id": first,
        "input": "And who is the mayor of Springfield now?",
    }
    reply = await editing.post(request, ("x-serac-debug", "true"), target=TARGET)
    assert reply.one("x-serac-reason") != "leans on turns not shown"
    assert reply.one("x-serac-route") == "counterfactual"
    assert editing.counterfactual.calls[-1][1].context == (EDITED_QUESTION, NEW_ANSWER)


async def test_the_openai_client_goes_on_from_a_streamed_response(editing: Gateway) -> None:
    async with AsyncOpenAI(base_url=f"{editing.url}/v1", api_key="k", max_retries=0) as client:
        async with client.responses.stream(model="m", input=EDITED_QUESTION) as stream:
            first = await stream.get_final_response()
        await client.responses.create(model="m", input=OTHER_QUESTION, previous_response_id=first.id)
    assert last_body(editing) == {"model": "m", "input": [TURN, SAID, NEXT]}


async def test_it_goes_on_too_when_the_edit_is_gone(editing: Gateway) -> None:
    first = await respond(editing, EDITED_QUESTION)
    (edit,) = editing.active_edits.all("default")
    await editing.retire(edit)
    await editing.post({"model": "m", "previous_response_id": first, "input": OTHER_QUESTION}, target=TARGET)
    assert last_body(editing) == {"model": "m", "input": [TURN, SAID, NEXT]}


async def test_what_is_not_remembered_passes_byte_for_byte(editing: Gateway) -> None:
    unstored = await respond(editing, EDITED_QUESTION, store=False)
    stored = await respond(editing, EDITED_QUESTION)
    for named, namespace in (("resp_upstream", "default"), (unstored, "default"), (stored, "other")):
        body = (
            b'{ "previous_response_id" : "%s","input":"How do I boil an egg?","model":"m"}' % named.encode()
        )
        await editing.post(body, ("x-serac-namespace", namespace), target=TARGET)
        assert editing.upstream.requests[-1].body == body


def remember(memory: ResponseMemory, token: str, body: bytes) -> None:
    memory.remember("default", RequestBody(body), f"resp_{token}", "An answer.")


def continued(memory: ResponseMemory, body: bytes) -> bytes:
    return memory.with_earlier_turns("default", RequestBody(body)).data


def test_the_oldest_are_dropped_when_there_are_too_many_bytes() -> None:
    memory = ResponseMemory(max_bytes=1_000)
    for number in range(10):
        remember(memory, str(number), b'{"input":"%s"}' % (b"x" * 300))
    kept = [
        number
        for number in range(10)
        if b"assistant" in continued(memory, b'{"previous_response_id":"resp_%d","input":"y"}' % number)
    ]
    assert kept == [7, 8, 9]
    remember(memory, "long", b'{"input":"%s"}' % (b"x" * MAX_REQUEST_BYTES))
    assert b"assistant" not in continued(memory, b'{"previous_response_id":"resp_long","input":"y"}')


@pytest.mark.parametrize(
    "body",
    [
        b'{"previous_response_id":"resp_1"',
        b'{"previous_response_id":"resp_1"}',
        b'{"previous_response_id":"resp_1","input":5}',
        b'{"previous_response_id":["resp_1"],"input":"x"}',
        b'["previous_response_id"]',
        b'{"input":"previous_response_id"}',
        b'{"previous_response_id":' + b"[" * 100_000 + b"]" * 100_000 + b',"input":"x"}',
    ],
)
def test_a_body_that_names_no_response_in_a_readable_way_is_left_to_the_upstream(
    body: bytes,
) -> None:
    memory = ResponseMemory()
    remember(memory, "1", b'{"input":"x"}')
    assert continued(memory, body) == body
