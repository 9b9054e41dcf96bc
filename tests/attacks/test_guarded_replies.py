"""The last door of a suppression: the base model's replies are watched for what it must not say.

Every question here passes the decision; only the reply holds the value.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from serac_gateway.data_plane.guard.patterns import patterns_of
from serac_gateway.data_plane.guard.text_watch import TextWatch
from serac_gateway.domain.folding import folded_text
from serac_gateway.testing import ReceivedRequest, ScriptedConnection
from tests.attacks.attacked_gateway import (
    OTHER_QUESTION,
    REFUSAL,
    AttackedGateway,
    attacked_gateway,
    chat,
)
from tests.attacks.leaking_replies import (
    BEFORE,
    BODY,
    CHAT,
    EVENTS,
    STREAMS,
    SUPPRESSIONS,
    WHOLE,
    Shape,
    answer_in,
    chat_stream,
    chunk,
    in_pieces,
    json_events,
    messages_stream,
    posted,
    replying,
    responses_stream,
    strings,
)
from tests.http.wire import eventually
from tests.unit.data_plane.test_text_watch import NAME, PASSWORD, PERSON, PHONE, PIN, WRITTEN

OPEN = ("x-serac-namespace", "open")
FOLDED = [folded_text(value) for value in (PASSWORD, PHONE, PERSON)]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway_of_all(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AttackedGateway]:
    async with attacked_gateway(tmp_path_factory.mktemp("guard")) as gateway:
        await gateway.add(*SUPPRESSIONS)
        yield gateway


@pytest.fixture
def gateway(gateway_of_all: AttackedGateway) -> AttackedGateway:
    gateway_of_all.upstream.forget()
    return gateway_of_all


def leaks(text: str) -> bool:
    watch = TextWatch(patterns_of([PASSWORD, PHONE, PIN, PERSON, NAME]))
    return watch.feed(text) is not None or watch.close() is not None


@pytest.mark.parametrize("size", [1, 3, 1_000])
@pytest.mark.parametrize("way", WRITTEN)
async def test_a_stream_is_cut_before_a_value_however_it_is_written(
    gateway: AttackedGateway, way: str, size: int
) -> None:
    """Bytes come one, three or a thousand at a time, and the text in pieces of four characters."""
    text = f"{BEFORE}{WRITTEN[way]} -- and more of it."
    body = chat_stream(lambda piece: {"content": piece})(in_pieces(text, 4))
    gateway.upstream.script = replying(body, size)
    reply = await posted(gateway, CHAT)
    assert reply.status == 200
    assert reply.complete
    answer = answer_in(reply.body)
    assert answer.startswith(BEFORE.strip())
    assert answer.endswith(REFUSAL)
    assert len(answer) < len(text) + len(REFUSAL)
    assert not leaks(answer.removesuffix(REFUSAL))
    assert reply.body.endswith(b"data: [DONE]\n\n")
    (finish,) = {c["finish_reason"] for e in json_events(reply.body) for c in e["choices"]} - {None}
    assert finish == "content_filter"


@pytest.mark.parametrize("size", [1, 3, 1_000])
@pytest.mark.parametrize("characters", [1, 5, 1_000])
@pytest.mark.parametrize("shape", STREAMS, ids=lambda shape: f"{shape.target[4:]} {shape.name}")
async def test_every_part_of_a_stream_is_watched(
    gateway: AttackedGateway, shape: Shape, characters: int, size: int
) -> None:
    text = f"{BEFORE}pelican77 is the password."
    gateway.upstream.script = replying(shape.body(in_pieces(text, characters)), size)
    reply = await posted(gateway, shape.target)
    assert reply.complete
    everything = "".join(strings(event) for event in json_events(reply.body))
    assert not any(value in folded_text(everything) for value in FOLDED), everything
    assert b"ican77" not in reply.body.replace(b"The password is pelican77.", b"")
    assert REFUSAL in reply.body.decode()
    if shape.shows_prefix:
        answer = answer_in(reply.body, index=1 if shape.name == "two choices" else 0)
        assert answer.endswith(REFUSAL)
        if shape.name != "blocks":
            assert answer.startswith(BEFORE)


@pytest.mark.parametrize("shape", WHOLE, ids=lambda shape: f"{shape.target[4:]} {shape.name}")
@pytest.mark.parametrize("way", ["as it is", "base64", "digits in words", "hex bytes", "full width"])
async def test_a_whole_reply_becomes_the_refusal(gateway: AttackedGateway, shape: Shape, way: str) -> None:
    """In its API's own shape, with every choice; the client gets nothing else."""
    gateway.upstream.script = replying(shape.body([f"{BEFORE}{WRITTEN[way]}"]), 1, is_stream=False)
    reply = await posted(gateway, shape.target)
    assert reply.status == 200
    assert reply.one("x-serac-guard") == "cut"
    assert int(reply.one("content-length")) == len(reply.body)
    assert not leaks(strings(reply.json).replace(REFUSAL, ""))
    assert REFUSAL in reply.body.decode()
    assert BEFORE not in reply.body.decode()
    match shape.target:
        case "/v1/messages":
            assert reply.json["stop_reason"] == "refusal"
        case "/v1/responses":
            assert reply.json["incomplete_details"] == {"reason": "content_filter"}
        case _:
            choices = reply.json["choices"]
            assert len(choices) == (2 if shape.name == "second choice" else 1)
            assert {choice["finish_reason"] for choice in choices} == {"content_filter"}


@pytest.mark.parametrize("shape", STREAMS, ids=lambda shape: f"{shape.target[4:]} {shape.name}")
@pytest.mark.parametrize("size", [1, 7, 1_000])
async def test_a_stream_without_a_value_passes_byte_for_byte(
    gateway: AttackedGateway, shape: Shape, size: int
) -> None:
    """Also one that often begins a value."""
    text = f"{BEFORE}The pelican 78, seven of 555 019, Ottilie, 47 and %70 &#112; cGVsaWNhbg== 70 65 6c."
    body = shape.body(in_pieces(text, 3))
    gateway.upstream.script = replying(body, size)
    reply = await posted(gateway, shape.target)
    assert reply.complete
    assert reply.body == body
    assert reply.one("x-serac-guard") == "watched"


@pytest.mark.parametrize("shape", WHOLE, ids=lambda shape: f"{shape.target[4:]} {shape.name}")
async def test_a_whole_reply_without_a_value_passes_byte_for_byte(
    gateway: AttackedGateway, shape: Shape
) -> None:
    body = shape.body(["The pelican is a bird, and 147110 is a number."])
    gateway.upstream.script = replying(body, 1, is_stream=False)
    reply = await posted(gateway, shape.target)
    assert reply.body == body


@pytest.mark.parametrize("shape", STREAMS + WHOLE, ids=lambda shape: f"{shape.target[4:]} {shape.name}")
async def test_where_nothing_is_suppressed_a_value_passes_byte_for_byte(
    gateway: AttackedGateway, shape: Shape
) -> None:
    """And the client's own Accept-Encoding reaches the upstream, whose reply may be encoded."""
    body = shape.body([f"{BEFORE}pelican77"])
    gateway.upstream.script = replying(body, 3, is_stream=shape.is_stream)
    reply = await posted(gateway, shape.target, OPEN, ("accept-encoding", "gzip, br"))
    assert reply.body == body
    assert reply.all("x-serac-guard") == []
    assert gateway.upstream.requests[-1].header("accept-encoding") == "gzip, br"


@pytest.mark.parametrize("headers", [(), (("accept-encoding", "gzip"),), (("Accept-Encoding", "br"),)])
async def test_a_reply_that_is_not_encoded_is_asked_for(gateway: AttackedGateway, headers: tuple) -> None:
    gateway.upstream.script = replying(b"{}", 1, is_stream=False)
    await posted(gateway, CHAT, *headers)
    received = [value for name, value in gateway.upstream.requests[-1].headers if name == "accept-encoding"]
    assert received == ["identity"]


@pytest.mark.parametrize("shape", [STREAMS[0], WHOLE[0]], ids=["stream", "whole"])
async def test_a_reply_that_is_encoded_all_the_same_is_refused(
    gateway: AttackedGateway, shape: Shape
) -> None:
    """With a sentence that says what to do; it is not passed on unread."""
    headers = (("content-type", "text/event-stream" if shape.is_stream else "application/json"),)
    body = gzip.compress(shape.body([f"{BEFORE}pelican77"]))
    encoded = (*headers, ("content-encoding", "gzip"))
    gateway.upstream.script = replying(body, 1, is_stream=False, headers=encoded)
    reply = await posted(gateway, shape.target)
    assert reply.status == 502
    assert "gzip" in reply.json["error"]["message"]
    assert "compression" in reply.json["error"]["message"]


async def test_an_error_of_the_upstream_that_has_a_value_is_withheld(gateway: AttackedGateway) -> None:
    body = json.dumps({"error": {"message": "I will not say pelican77"}}).encode()
    gateway.upstream.script = replying(body, 1, is_stream=False, status=400)
    reply = await posted(gateway, CHAT)
    assert reply.status == 403
    assert reply.json["error"]["code"] == "content_filter"
    assert b"pelican" not in reply.body


@pytest.mark.parametrize(
    ("target", "content_type", "text"),
    [
        ("/v1/responses/resp_7", "application/json", '{"output": ["pelican77"]}'),
        ("/v1/moderations", "application/json; charset=utf-8", '{"results": [{"text": "pelican 77"}]}'),
        ("/v1/chat/completions", "application/json", '{"broken": "pelican77'),
    ],
)
async def test_other_paths_and_broken_json_are_watched_too(
    gateway: AttackedGateway, target: str, content_type: str, text: str
) -> None:
    gateway.upstream.script = replying(
        text.encode(), 1, is_stream=False, headers=(("content-type", content_type),)
    )
    reply = await gateway.post(BODY, target=target)
    assert reply.status in (200, 403)
    assert REFUSAL in reply.body.decode()
    assert b"elican" not in reply.body


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-ndjson", "application/jsonl", "text/html"]
)
@pytest.mark.parametrize("size", [1, 3, 1_000])
async def test_a_text_without_a_form_for_refusals_breaks_off_before_the_value(
    gateway: AttackedGateway, content_type: str, size: int
) -> None:
    """Its length may have been announced, and a half text is no whole answer."""
    headers = (("content-type", content_type), ("transfer-encoding", "chunked"))
    gateway.upstream.script = replying(f'{{"t": "{BEFORE}pelican77"}}'.encode(), size, headers=headers)
    reply = await gateway.get("/v1/files/f1/content")
    assert not reply.complete
    assert b"pel" not in reply.body
    gateway.upstream.script = replying(b'{"t": "a pelican"}', size, headers=headers)
    reply = await gateway.get("/v1/files/f1/content")
    assert reply.complete
    assert reply.body == b'{"t": "a pelican"}'


async def test_images_and_sound_pass_unread(gateway: AttackedGateway) -> None:
    body = b"\x89PNG pelican77"
    gateway.upstream.script = replying(body, 1, is_stream=False, headers=(("content-type", "image/png"),))
    assert (await gateway.get("/v1/files/f1/content")).body == body


async def test_a_stream_that_breaks_off_ends_with_its_error_as_ever(gateway: AttackedGateway) -> None:
    async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.chunk(chunk({"content": "The pelican"}))
        await connection.break_off()

    gateway.upstream.script = script
    reply = await posted(gateway, CHAT)
    assert reply.complete
    assert "The pelican" in reply.body.decode()
    assert [event["error"]["code"] for event in json_events(reply.body) if "error" in event] == [
        "upstream_unreachable"
    ]


async def test_the_connection_to_the_upstream_is_closed_at_a_cut(gateway: AttackedGateway) -> None:
    """What the model goes on to say is nobody's, and costs no more tokens."""
    left = asyncio.Event()

    async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.chunk(chunk({"content": "It is pelican77."}))
        await connection.client_left()
        left.set()

    gateway.upstream.script = script
    reply = await posted(gateway, CHAT)
    assert reply.body.endswith(b"[DONE]\n\n")
    await eventually(left.is_set)


async def test_text_that_begins_no_value_is_not_held_back(gateway: AttackedGateway) -> None:
    """An event that may begin a value waits for the next, and for no more than that."""
    arrived: list[bytes] = []
    go_on = asyncio.Event()

    async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        for text in ("The sea is vast", " and p", "lain"):
            await connection.chunk(chunk({"content": text}))
        await go_on.wait()
        await connection.end()

    gateway.upstream.script = script
    async with gateway.client.stream("POST", CHAT, json=chat(OTHER_QUESTION)) as reply:
        async for data in reply.aiter_bytes():
            arrived.append(data)
            if b"lain" in b"".join(arrived):
                go_on.set()
    assert b"".join(arrived).count(b"data: ") == 3


async def test_a_text_that_does_not_go_on_does_not_hold_another_back(gateway: AttackedGateway) -> None:
    """Reasoning that ends with the beginning of a value, then the answer."""
    go_on = asyncio.Event()

    async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.chunk(chunk({"reasoning_content": "I could say pelican"}))
        for _ in range(8):
            await connection.chunk(chunk({"content": "The sea is big."}))
        await go_on.wait()
        await connection.end()

    gateway.upstream.script = script
    async with gateway.client.stream("POST", CHAT, json=chat(OTHER_QUESTION)) as reply:
        arrived = b""
        async for data in reply.aiter_bytes():
            arrived += data
            if b"big" in arrived:
                go_on.set()
    assert go_on.is_set(), "the answer came only with the end of the reply"


async def test_real_clients_read_the_end_of_a_cut_stream(gateway: AttackedGateway) -> None:
    pieces = in_pieces(f"{BEFORE}pelican77", 4)
    openai = AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0)
    gateway.upstream.script = replying(chat_stream(lambda text: {"content": text})(pieces), 100)
    stream = await openai.chat.completions.create(model="m", messages=BODY["messages"], stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    assert {chunk.id for chunk in chunks} == {"chatcmpl-7"}
    gateway.upstream.script = replying(responses_stream(pieces), 100)
    responses = await openai.responses.create(model="m", input=OTHER_QUESTION, stream=True)
    events = [event async for event in responses]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == f"{BEFORE}\n\n{REFUSAL}"
    assert events[-1].response.incomplete_details.reason == "content_filter"
    await openai.close()
    anthropic = AsyncAnthropic(base_url=gateway.url, api_key="x", max_retries=0)
    block = {"type": "text", "text": ""}
    gateway.upstream.script = replying(messages_stream("text_delta", "text", block)(pieces), 100)
    async with anthropic.messages.stream(model="m", max_tokens=9, messages=BODY["messages"]) as spoken:
        message = await spoken.get_final_message()
    assert message.stop_reason == "refusal"
    await anthropic.close()
    assert [block.text for block in message.content] == [f"{BEFORE}\n\n{REFUSAL}"]
