"""Streams pass as they come, byte for byte and at once (docs/proxy_cases.md, cases 2, 3, 11, 15, 17, 19)."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
import uvloop
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from serac_gateway.config.model import GatewayConfig, ServerConfig
from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream
from tests.http.modes import Mode
from tests.http.running_gateway import ENDPOINTS, EVENTS, OTHER_QUESTION, Gateway, chat
from tests.http.wire import connected, eventually, read_head, request_bytes

BODY = json.dumps(chat(OTHER_QUESTION, stream=True)).encode()


# Case 2

STREAM = (
    ': ping\n\nevent: x\ndata: {"choices":[{"delta":{"content":"日本 😀"}}]}\r\n\r\n'
    'data: {"a":\ndata: 1}\n\ndata: {"choices":[]}\n\ndata: [DONE]\n\n'
).encode()
NAMED_STREAM = (
    'event: ping\ndata: {"type": "ping"}\n\nevent: content_block_delta\r\ndata: {"delta":"日本 😀"}\r\n\r\n'
    'event: response.completed\ndata: {"sequence_number":3}\n\nevent: message_stop\ndata: {}\n\n'
).encode()
TOOL_STREAM = (
    b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f"}}]}}]}'
    b'\n\ndata: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\":"}}]}}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}\n\ndata: [DONE]\n\n'
)
"""Case 15: the deltas of a tool's call."""


@pytest.mark.parametrize(
    ("target", "whole"),
    [
        (ENDPOINTS[0], STREAM),
        (ENDPOINTS[0], TOOL_STREAM),
        ("/v1/responses", NAMED_STREAM),
        ("/v1/messages", NAMED_STREAM),
    ],
    ids=["chat", "tool calls", "responses", "messages"],
)
async def test_a_stream_cut_at_any_byte_arrives_the_same(passing: Gateway, target: str, whole: bytes) -> None:
    cut = 0
    request = {"input": OTHER_QUESTION, "max_tokens": 5, **chat(OTHER_QUESTION, stream=True)}

    async def stream(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, ("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))
        for piece in (whole[:cut], whole[cut : cut + 1], whole[cut + 1 :]):
            if piece:
                await connection.chunk(piece)
        await connection.end()

    passing.upstream.script = stream
    for cut in range(len(whole)):  # noqa: B007 - the script reads it
        response = await passing.post(request, target=target)
        assert response.complete
        assert response.body == whole


@pytest.mark.parametrize(
    "event",
    [
        b"data: 1\n\n",
        b"data: 1\r\n\r\n",
        b"data: 1\r\r",
        b": ping\n",
        b": ping\r\n\r\n",
        b"event: x\nid: 7\ndata: {\ndata: }\n\n",
        b"data: 1\n\ndata: 2\n\n",
        b"data: 1\r\n\r\n: two\n\n",
    ],
)
@pytest.mark.parametrize("begun", [b"", b'data: {"half', "data: 日".encode()[:-1]])
async def test_an_event_waits_for_nothing_that_follows_it(
    passing: Gateway, event: bytes, begun: bytes
) -> None:
    """The upstream goes on only when the client has the event: merging would wait for ever."""
    has_it = asyncio.Event()

    async def wait(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.chunk(event + begun)
        await has_it.wait()
        await connection.end()

    passing.upstream.script = wait
    async with connected(passing.url) as (reader, writer):
        writer.write(request_bytes(passing.url, "POST", ENDPOINTS[0], [], BODY))
        await read_head(reader)
        async with asyncio.timeout(5):
            size = int(await reader.readline(), 16)
            assert await reader.readexactly(size) in (event, event + begun)
        has_it.set()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
async def test_events_that_one_line_end_separates_wait_for_nothing_either(
    passing: Gateway, end: bytes
) -> None:
    """The upstream sends no blank lines, and breaks off: the error is an event of its own all the same."""
    has_it = asyncio.Event()
    events = [b'data: {"n":%d}%b' % (number, end) for number in range(3)]

    async def stream(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        for event in events:
            has_it.clear()
            await connection.chunk(event)
            await has_it.wait()
        await connection.break_off()

    passing.upstream.script = stream
    async with connected(passing.url) as (reader, writer):
        writer.write(request_bytes(passing.url, "POST", ENDPOINTS[0], [], BODY))
        await read_head(reader)
        async with asyncio.timeout(20):
            for event in events:
                size = int(await reader.readline(), 16)
                assert await reader.readexactly(size) == event
                await reader.readline()
                has_it.set()
            size = int(await reader.readline(), 16)
            assert (await reader.readexactly(size)).startswith(b"\ndata: {")


async def test_an_event_stream_without_a_last_blank_line_arrives_whole(passing: Gateway) -> None:
    async def stream(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, ("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))
        await connection.chunk(b"data: 1\n\ndata: 2")
        await connection.end()

    passing.upstream.script = stream
    response = await passing.post(chat(OTHER_QUESTION, stream=True))
    assert (response.body, response.complete) == (b"data: 1\n\ndata: 2", True)


# Case 3


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/octet-stream"])
async def test_each_chunk_arrives_within_20_ms(passing: Gateway, content_type: str) -> None:
    sent: list[float] = []

    async def slowly(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, ("content-type", content_type), ("transfer-encoding", "chunked"))
        for number in range(5):
            await asyncio.sleep(0.2)
            sent.append(time.perf_counter())
            await connection.chunk(b"data: %d\n\n" % number)
        await connection.end()

    passing.upstream.script = slowly
    response = await passing.post(BODY)
    delays = [arrived - left for (arrived, _), left in zip(response.arrivals, sent, strict=True)]
    assert statistics.median(delays) < 0.02  # a busy machine may delay one; Nagle would delay all by 40 ms


def _connected_sockets() -> Iterator[socket.socket]:
    """Duplicates of this process' connected TCP sockets."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as duplicate:
            duplicate.getpeername()
            if duplicate.family == socket.AF_INET:
                yield duplicate


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="finds its own sockets in Linux' /proc")
def test_neither_leg_waits_to_fill_a_packet(mode: Mode) -> None:
    """On uvloop, as in `serac serve`: asyncio's own loop leaves a given listener's connections alone."""

    async def stream(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.chunk(b"data: 1\n\n")
        await connection.client_left()

    async def no_delays() -> tuple[list[bool], list[bool]]:
        async with mode.gateway(upstream=ScriptedUpstream(stream)) as gateway:
            ports = [urlsplit(url).port for url in (gateway.url, gateway.upstream.url)]
            async with connected(gateway.url) as (reader, writer):
                writer.write(request_bytes(gateway.url, "POST", ENDPOINTS[0], [], BODY))
                await reader.readuntil(b"data: 1\n\n")
                ends = [
                    (end.getsockname()[1], end.getpeername()[1], _no_delay(end))
                    for end in _connected_sockets()
                ]
            to_client = [no_delay for own, _, no_delay in ends if own == ports[0]]
            to_upstream = [no_delay for _, peer, no_delay in ends if peer == ports[1]]
            return to_client, to_upstream

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(no_delays()) == ([True], [True])


def _no_delay(connection: socket.socket) -> bool:
    return bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


# Case 11


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/octet-stream"])
async def test_a_slow_reader_costs_no_memory(passing: Gateway, content_type: str) -> None:
    event = b"data: " + b"x" * 9_992 + b"\n\n"
    events, sent = 500, 0

    async def flood(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, ("content-type", content_type), ("transfer-encoding", "chunked"))
        nonlocal sent
        for sent in range(events):  # noqa: B007 - how far it came
            await connection.chunk(event)
        await connection.end()

    passing.upstream.script = flood
    assert len((await passing.post(BODY)).body) == 5_000_000  # what streaming costs once is no part of it
    events = 20_000  # 200 MB
    gc.collect()
    before = _resident_bytes()
    async with connected(passing.url) as (reader, writer):
        reader._limit = 4_096  # the test's own buffer must not be what fills
        writer.write(request_bytes(passing.url, "POST", ENDPOINTS[0], [], BODY))
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(20):
            await reader.readexactly(1_024)
            await asyncio.sleep(0.05)
        assert _resident_bytes() - before < 5_000_000
        assert sent < events / 2  # the upstream is held back: the kernel's buffers are all that fills


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Case 17


@pytest.mark.parametrize("include_usage", [True, False])
async def test_the_base_models_usage_comes_as_it_sent_it(passing: Gateway, include_usage: bool) -> None:
    def chunk(**fields: object) -> bytes:
        whole = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **fields}
        return b"data: " + json.dumps(whole).encode() + b"\n\n"

    word = [{"index": 0, "delta": {"content": "Boil."}, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}

    async def answer(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.chunk(chunk(choices=word))
        if json.loads(request.body)["stream_options"]["include_usage"]:
            await connection.chunk(chunk(choices=[], usage=usage))
        await connection.chunk(b"data: [DONE]\n\n")
        await connection.end()

    passing.upstream.script = answer
    async with AsyncOpenAI(base_url=f"{passing.url}/v1", api_key="k", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="m",
            messages=chat(OTHER_QUESTION)["messages"],
            stream=True,
            stream_options={"include_usage": include_usage},
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.content == "Boil."
    total_tokens = [chunk.usage.total_tokens for chunk in chunks if chunk.usage is not None]
    assert total_tokens == ([4] if include_usage else [])
    assert len(chunks) == 1 + include_usage
    assert chunks[-1].choices == ([] if include_usage else chunks[0].choices)


# Case 19: comments in a long time to the first token


async def _first_event_after_half_a_second(request: ReceivedRequest, connection: ScriptedConnection) -> None:
    await connection.head(200, *EVENTS)
    await asyncio.sleep(0.5)
    for number in range(2):
        await connection.chunk(b"data: %d\n\n" % number)
        await asyncio.sleep(0.3)
    await connection.end()


async def test_comments_keep_a_stream_alive_until_its_first_event_where_they_are_asked_for(
    mode: Mode,
) -> None:
    config = GatewayConfig(server=ServerConfig(ping_interval_s=0.1))
    upstream = ScriptedUpstream(_first_event_after_half_a_second)
    async with mode.gateway(config=config, upstream=upstream) as gateway:
        pings, rest = (await gateway.post(BODY)).body.split(b"data: 0")
        assert pings in [b": ping\n" * count for count in range(1, 5)]  # fewer on a busy machine
        assert rest == b"\n\ndata: 1\n\n"


async def test_comments_are_no_events_to_clients(mode: Mode) -> None:
    """A blank line after a comment ends an empty event, which openai-go and others try to parse."""
    config = GatewayConfig(server=ServerConfig(ping_interval_s=0.05))
    chunk = b'{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}'
    message = b'{"type":"message_stop"}'

    async def late(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await asyncio.sleep(0.3)
        event = (
            b"event: message_stop\ndata: " + message if "messages" in request.target else b"data: " + chunk
        )
        await connection.chunk(event + b"\n\n")
        await connection.end()

    messages = [{"role": "user", "content": OTHER_QUESTION}]
    async with mode.gateway(config=config, upstream=ScriptedUpstream(late)) as gateway:
        body = (await gateway.post(BODY)).body
        assert body.startswith(b": ping\n")
        assert body.count(b"\n\n") == 1
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="k", max_retries=0) as client:
            stream = await client.chat.completions.create(model="m", messages=messages, stream=True)
            assert [chunk.id async for chunk in stream] == ["c"]
        async with AsyncAnthropic(base_url=gateway.url, api_key="k", max_retries=0) as anthropic:
            events = await anthropic.messages.create(model="m", max_tokens=5, messages=messages, stream=True)
            assert [event.type async for event in events] == ["message_stop"]


async def test_no_comment_is_added_by_default(passing: Gateway) -> None:
    passing.upstream.script = _first_event_after_half_a_second
    assert (await passing.post(BODY)).body == b"data: 0\n\ndata: 1\n\n"


async def test_a_client_that_leaves_among_the_comments_closes_the_upstreams_socket(mode: Mode) -> None:
    config = GatewayConfig(server=ServerConfig(ping_interval_s=0.05))

    async def hang(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.client_left()

    async with mode.gateway(config=config, upstream=ScriptedUpstream(hang)) as gateway:
        async with connected(gateway.url) as (reader, writer):
            writer.write(request_bytes(gateway.url, "POST", "/v1/chat/completions", [], BODY))
            await reader.readuntil(b": ping\n")
        await eventually(lambda: gateway.upstream.open_connections == 0)
        await eventually(lambda: gateway.in_flight == 0)
        assert gateway.counts.clients_left == 1


async def test_an_upstream_that_dies_among_the_comments_gives_one_error_event(mode: Mode) -> None:
    config = GatewayConfig(server=ServerConfig(ping_interval_s=0.05))

    async def die(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await asyncio.sleep(0.3)
        await connection.break_off()

    async with mode.gateway(config=config, upstream=ScriptedUpstream(die)) as gateway:
        reply = await gateway.post(BODY)
        assert reply.body.startswith(b": ping\n")
        assert json.loads(reply.body.split(b"data: ")[1])["error"]["code"] == "upstream_unreachable"
