"""The last door of a suppression: the base model's replies are watched for what it must not say.

Every question here passes the decision; only the reply holds the value.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
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
    SUPPRESSED_QUESTION,
    SUPPRESSION,
    AttackedGateway,
    attacked_gateway,
    chat,
)
from tests.attacks.leaking_replies import (
    CHAT,
    COMPLETIONS,
    EVENTS,
    JSON,
    MESSAGES,
    RESPONSES,
    STREAMS,
    WHOLE,
    Shape,
    chat_stream,
    chunk,
    in_pieces,
    json_events,
    messages_stream,
    replying,
    responses_stream,
)
from tests.http.wire import WireResponse, eventually
from tests.unit.data_plane.test_text_watch import NAME, PASSWORD, PERSON, PHONE, PIN, WRITTEN

BEFORE = "Certainly! Here you are: "
SUPPRESSIONS = [
    {**SUPPRESSION, "target_true": PASSWORD},
    *(
        {
            "id": f"hidden-{place}",
            "kind": "suppression",
            "prompt": f"What is secret number {place} of the Halyard office?",
            "target_new": REFUSAL,
            "target_true": value,
        }
        for place, value in enumerate((PHONE, PIN, PERSON, NAME))
    ),
]
OPEN = ("x-serac-namespace", "open")
BODY = {
    "model": "m",
    "input": OTHER_QUESTION,
    "prompt": OTHER_QUESTION,
    "max_tokens": 5,
    **chat(OTHER_QUESTION),
}
"""A request that every API takes."""
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


async def asked(gateway: AttackedGateway, target: str, *headers: tuple[str, str]) -> WireResponse:
    body = {name: BODY[name] for name in FIELDS[target]}
    return await gateway.post(body, *headers, target=target)


FIELDS = {
    CHAT: ("model", "messages"),
    COMPLETIONS: ("model", "prompt"),
    RESPONSES: ("model", "input"),
    MESSAGES: ("model", "messages", "max_tokens"),
}


def strings(value: object) -> str:
    """All strings of a value, joined."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "".join(strings(member) for name, member in value.items() if name != "instructions")
    return "".join(map(strings, value)) if isinstance(value, list) else ""


def leaks(text: str) -> bool:
    watch = TextWatch(patterns_of([PASSWORD, PHONE, PIN, PERSON, NAME]))
    return watch.feed(text) is not None or watch.close() is not None


def answer_in(body: bytes, index: int = 0) -> str:
    """What a client shows of a stream: the texts of the answer itself, or of its choice `index`."""
    text = ""
    for event in json_events(body):
        for choice in event.get("choices", ()):
            if choice["index"] == index:
                content = choice.get("delta", {}).get("content") or choice.get("text") or ""
                text += content if isinstance(content, str) else strings([part["text"] for part in content])
        if event.get("type") == "content_block_delta":
            text += event["delta"].get("text", "")
        if event.get("type") == "response.output_text.delta":
            text += event["delta"]
    return text


@pytest.mark.parametrize("size", [1, 3, 1_000])
@pytest.mark.parametrize("way", WRITTEN)
async def test_a_stream_is_cut_before_a_value_however_it_is_written(
    gateway: AttackedGateway, way: str, size: int
) -> None:
    """Bytes come one, three or a thousand at a time, and the text in pieces of four characters."""
    text = f"{BEFORE}{WRITTEN[way]} -- and more of it."
    body = chat_stream(lambda piece: {"content": piece})(in_pieces(text, 4))
    gateway.upstream.script = replying(body, size)
    reply = await asked(gateway, CHAT)
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
    reply = await asked(gateway, shape.target)
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
    reply = await asked(gateway, shape.target)
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
    reply = await asked(gateway, shape.target)
    assert reply.complete
    assert reply.body == body
    assert reply.one("x-serac-guard") == "watched"


@pytest.mark.parametrize("shape", WHOLE, ids=lambda shape: f"{shape.target[4:]} {shape.name}")
async def test_a_whole_reply_without_a_value_passes_byte_for_byte(
    gateway: AttackedGateway, shape: Shape
) -> None:
    body = shape.body(["The pelican is a bird, and 147110 is a number."])
    gateway.upstream.script = replying(body, 1, is_stream=False)
    reply = await asked(gateway, shape.target)
    assert reply.body == body


@pytest.mark.parametrize("shape", STREAMS + WHOLE, ids=lambda shape: f"{shape.target[4:]} {shape.name}")
async def test_where_nothing_is_suppressed_a_value_passes_byte_for_byte(
    gateway: AttackedGateway, shape: Shape
) -> None:
    """And the client's own Accept-Encoding reaches the upstream, whose reply may be encoded."""
    body = shape.body([f"{BEFORE}pelican77"])
    gateway.upstream.script = replying(body, 3, is_stream=shape.is_stream)
    reply = await asked(gateway, shape.target, OPEN, ("accept-encoding", "gzip, br"))
    assert reply.body == body
    assert reply.all("x-serac-guard") == []
    assert gateway.upstream.requests[-1].header("accept-encoding") == "gzip, br"


@pytest.mark.parametrize("headers", [(), (("accept-encoding", "gzip"),), (("Accept-Encoding", "br"),)])
async def test_a_reply_that_is_not_encoded_is_asked_for(gateway: AttackedGateway, headers: tuple) -> None:
    gateway.upstream.script = replying(b"{}", 1, is_stream=False)
    await asked(gateway, CHAT, *headers)
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
    reply = await asked(gateway, shape.target)
    assert reply.status == 502
    assert "gzip" in reply.json["error"]["message"]
    assert "compression" in reply.json["error"]["message"]


async def test_an_error_of_the_upstream_that_has_a_value_is_withheld(gateway: AttackedGateway) -> None:
    body = json.dumps({"error": {"message": "I will not say pelican77"}}).encode()
    gateway.upstream.script = replying(body, 1, is_stream=False, status=400)
    reply = await asked(gateway, CHAT)
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
    reply = await asked(gateway, CHAT)
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
    reply = await asked(gateway, CHAT)
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


async def test_a_cut_stands_in_the_log_and_the_metrics_without_the_value(
    gateway: AttackedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gateway.upstream.script = replying(WHOLE[0].body(["It is pelican77"]), 1, is_stream=False)
    reply = await asked(gateway, CHAT)
    lines = [record for record in caplog.records if "suppression hidden" in record.getMessage()]
    assert lines
    assert reply.one("x-serac-request-id") in lines[0].getMessage()
    everything = " ".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert "pelican77" not in everything.lower()
    metrics = (await gateway.call("GET", "/metrics")).text
    assert 'serac_replies_cut_total{namespace="default"}' in metrics
    assert 'reason="reply cut"' in metrics
    assert "pelican" not in metrics


@pytest.mark.parametrize(
    "text",
    ["suppression.guard_replies = false", "[suppression.namespaces.default]\nguard_replies = false"],
)
async def test_the_guard_can_be_switched_off(tmp_path: Path, text: str) -> None:
    async with attacked_gateway(tmp_path, text) as gateway:
        await gateway.add(*SUPPRESSIONS)
        body = WHOLE[0].body(["It is pelican77"])
        gateway.upstream.script = replying(body, 1, is_stream=False)
        assert (await asked(gateway, CHAT)).body == body


async def test_the_guard_stays_on_elsewhere_if_it_is_off_in_a_namespace(tmp_path: Path) -> None:
    text = "[suppression.namespaces.elsewhere]\nguard_replies = false"
    async with attacked_gateway(tmp_path, text) as gateway:
        await gateway.add(*SUPPRESSIONS)
        gateway.upstream.script = replying(WHOLE[0].body(["It is pelican77"]), 1, is_stream=False)
        assert b"pelican" not in (await asked(gateway, CHAT)).body


async def test_a_reply_is_watched_with_the_suppressions_of_when_it_was_asked_for(tmp_path: Path) -> None:
    """A suppression written while a reply streams is for later requests, and so is its end."""
    async with attacked_gateway(tmp_path) as gateway:
        await gateway.add(SUPPRESSIONS[1])
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
            await connection.head(200, *EVENTS)
            begun.set()
            await go_on.wait()
            await connection.chunk(chunk({"content": "It is pelican77."}))
            await connection.end()

        gateway.upstream.script = script
        running = asyncio.create_task(asked(gateway, CHAT))
        await begun.wait()
        await gateway.add(SUPPRESSIONS[0])
        go_on.set()
        assert b"pelican77" in (await running).body
        assert b"pelican" not in (await asked(gateway, CHAT)).body
        reply = await gateway.call("DELETE", "/serac/v1/edits/hidden", headers={"if-match": "*"})
        assert reply.status_code == 200, reply.text
        assert b"pelican77" in (await asked(gateway, CHAT)).body


async def test_a_suppression_out_of_its_window_or_on_trial_guards_nothing(tmp_path: Path) -> None:
    async with attacked_gateway(tmp_path) as gateway:
        for changes in (
            {"id": "past", "valid_until": "2020-01-01T00:00:00Z"},
            {"id": "shadow", "state": "shadow"},
            {"id": "canary", "state": "canary", "canary_share": 0},
        ):
            await gateway.add({**SUPPRESSIONS[0], **changes})
        body = WHOLE[0].body(["It is pelican77"])
        gateway.upstream.script = replying(body, 1, is_stream=False)
        assert (await asked(gateway, CHAT)).body == body
        await gateway.add({**SUPPRESSIONS[0], "id": "live", "target_new": "No."})
        assert (await asked(gateway, CHAT)).json["choices"][0]["message"]["content"] == "No."


@pytest.mark.parametrize(("value", "is_guarded"), [
    ("x", False), ("42", False), ("no", False), ("with", False), ("There", False), ("!!!", False),
    ("🦩", False),
    ("王", False), ("4711", True), ("王伟", True), ("Paris", True), ("with love", True), ("a.b+c*", False),
    (r"(pel|can)+\d{2}", True), ("line one\nline two", True), ("Мария", True), ("x" * 2_000, True),
])  # fmt: skip
async def test_a_value_that_most_replies_have_is_not_watched_for_and_the_editor_is_warned(
    tmp_path: Path, value: str, is_guarded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with attacked_gateway(tmp_path, "edits.firing_check = false") as gateway:
        draft = {**SUPPRESSION, "target_true": value}
        reply = (await gateway.call("POST", "/serac/v1/edits", json=draft)).json()
        codes = [warning["code"] for warning in reply.get("warnings", [])]
        assert codes == ([] if is_guarded else ["replies_not_guarded"])
        body = WHOLE[0].body([f"It is {value}, and that is it."])
        gateway.upstream.script = replying(body, 1, is_stream=False)
        assert ((await asked(gateway, CHAT)).body == body) is not is_guarded
        warned = [
            r for r in caplog.records if "not watched for the value of suppression hidden" in r.getMessage()
        ]
        assert bool(warned) is not is_guarded


async def test_a_value_of_10_000_characters_is_refused_with_its_limit(gateway: AttackedGateway) -> None:
    reply = await gateway.call("POST", "/serac/v1/edits", json={**SUPPRESSION, "target_true": "x" * 10_000})
    assert reply.status_code == 400
    assert "2,000" in reply.text


async def test_a_batch_of_prompts_is_watched_choice_by_choice(gateway: AttackedGateway) -> None:
    """Here an edit answers another prompt of it, so that the base model's answers are put beside that."""
    await gateway.add({"id": "mayor", "prompt": "Who is the mayor of Marrowby?", "target_new": "Ottie B."})
    choices = [{"index": 0, "text": "a pelican"}, {"index": 1, "text": "pelican77"}]
    gateway.upstream.script = replying(json.dumps({"choices": choices}).encode(), 1, is_stream=False)
    prompts = [OTHER_QUESTION, "Who is the mayor of Marrowby?", "And another one?"]
    reply = await gateway.post({"model": "m", "prompt": prompts}, target=COMPLETIONS)
    texts = [choice["text"] for choice in reply.json["choices"]]
    assert texts[0] == "a pelican"
    assert texts[2] == REFUSAL
    assert reply.json["choices"][2]["finish_reason"] == "content_filter"


async def test_a_speculative_reply_is_watched(tmp_path: Path) -> None:
    async with attacked_gateway(tmp_path, "routing.speculate = true") as gateway:
        await gateway.add(*SUPPRESSIONS)
        gateway.upstream.script = replying(WHOLE[0].body(["It is pelican77"]), 1, is_stream=False)
        assert b"pelican" not in (await asked(gateway, CHAT)).body
        assert gateway.upstream.requests[-1].header("accept-encoding") == "identity"


@pytest.mark.slow
async def test_a_value_ten_million_characters_into_a_stream_is_cut_in_bounded_memory(
    gateway: AttackedGateway,
) -> None:
    """And in time linear in the stream: some 3 µs a character, and ten times that for slow machines."""
    text = "The sea is vast and blue, and nobody knows how deep it is. " * 170
    event = chunk({"content": text})

    async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        for _ in range(100):
            await connection.chunk(event * 10)
        await connection.chunk(chunk({"content": "It is pelican77."}))
        await connection.end()

    gateway.upstream.script = script
    size, last = 0, b""
    process = psutil.Process()
    begun, before = time.process_time(), process.memory_info().rss
    async with gateway.client.stream("POST", CHAT, json=chat(OTHER_QUESTION)) as reply:
        async for data in reply.aiter_bytes():
            size += len(data)
            last = (last + data)[-2_000:]
    assert size > 10_000_000
    assert b"pelican" not in last
    assert REFUSAL.encode() in last
    assert process.memory_info().rss - before < 64_000_000
    assert time.process_time() - begun < 300


async def test_a_long_event_does_not_keep_other_requests_waiting(gateway: AttackedGateway) -> None:
    body = chunk({"content": "The sea is vast. " * 60_000 + "It is pelican77."})
    gateway.upstream.script = replying(body, 60_000)
    running = asyncio.create_task(asked(gateway, CHAT))
    waits: list[float] = []
    while not running.done():
        begun = time.perf_counter()
        await gateway.get("/health/live")
        waits.append(time.perf_counter() - begun)
    assert REFUSAL in (await running).body.decode()
    assert len(waits) > 10
    assert sorted(waits)[len(waits) // 2] < 0.5


async def test_a_value_at_the_end_of_a_long_whole_reply_is_cut_while_others_are_served(
    gateway: AttackedGateway,
) -> None:
    body = WHOLE[0].body(["The sea is vast. " * 60_000 + "It is pelican77."])
    gateway.upstream.script = replying(body, 1, is_stream=False)
    running = asyncio.create_task(asked(gateway, CHAT))
    waits: list[float] = []
    while not running.done():
        begun = time.perf_counter()
        await gateway.get("/health/live")
        waits.append(time.perf_counter() - begun)
    assert (await running).json["choices"][0]["message"]["content"] == REFUSAL
    assert sorted(waits)[len(waits) // 2] < 0.5


async def test_a_suppressed_question_is_refused_before_anything_is_sent(gateway: AttackedGateway) -> None:
    reply = await gateway.post(chat(SUPPRESSED_QUESTION))
    assert reply.json["choices"][0]["message"]["content"] == REFUSAL
    assert gateway.upstream.requests == []
    assert JSON[1] in reply.one("content-type")
