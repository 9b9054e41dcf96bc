"""How an upstream's failures reach the client (docs/proxy_cases.md, cases 4, 6 and 7)."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from openai import APIError, AsyncOpenAI

from serac_gateway.config.model import GatewayConfig, UpstreamConfig
from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream
from tests.http.modes import Mode
from tests.http.running_gateway import EVENTS, OTHER_QUESTION, Gateway, chat
from tests.http.wire import eventually

BODY = json.dumps(chat(OTHER_QUESTION, stream=True)).encode()


# Case 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 500, 503])
async def test_an_error_before_the_stream_keeps_its_status_and_body(passing: Gateway, status: int) -> None:
    error = b'{"error":{"message":"m","type":"t","param":null,"code":"c"}}'

    async def fail(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(status, error, ("content-type", "application/json"))

    passing.upstream.script = fail
    response = await passing.post(BODY)
    assert (response.status, response.body) == (status, error)
    assert response.one("content-type") == "application/json"


# Case 6


@pytest.mark.parametrize(
    "half", [b"", b'data: {"ha', b"data: 1\n", "data: 日".encode()[:-1], b"event: x\r\ndata: 1\r\n"]
)
async def test_an_upstream_that_dies_in_a_stream_gives_one_whole_error_event(
    passing: Gateway, half: bytes
) -> None:
    async def die(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.chunk(b'data: {"a":1}\n\n' + half)
        await connection.break_off()

    passing.upstream.script = die
    response = await passing.post(BODY)
    assert response.complete
    first, error, rest = response.body.split(b"\n\n")
    assert (first, rest) == (b'data: {"a":1}', b"")
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "upstream_unreachable"


async def test_the_openai_client_raises_when_the_upstream_dies_and_sees_no_finish_reason(
    passing: Gateway,
) -> None:
    async def die(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        word = {"index": 0, "delta": {"content": "Boil"}, "finish_reason": None}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [word]}
        await connection.head(200, *EVENTS)
        await connection.chunk(b"data: " + json.dumps(chunk).encode() + b'\n\ndata: {"id')
        await connection.break_off()

    passing.upstream.script = die
    seen = []

    async def read() -> None:
        async with AsyncOpenAI(base_url=f"{passing.url}/v1", api_key="k", max_retries=0) as client:
            messages = chat(OTHER_QUESTION)["messages"]
            async for chunk in await client.chat.completions.create(
                model="m", messages=messages, stream=True
            ):
                seen.append(chunk.choices[0])

    with pytest.raises(APIError, match="broke the connection off"):
        await read()
    assert [(choice.delta.content, choice.finish_reason) for choice in seen] == [("Boil", None)]


async def test_a_stream_that_said_done_ends_without_an_error(passing: Gateway) -> None:
    async def stop_after_done(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.chunk(b"data: 1\n\ndata: [DONE]\n\n")
        await connection.break_off()

    passing.upstream.script = stop_after_done
    response = await passing.post(BODY)
    assert (response.body, response.complete) == (b"data: 1\n\ndata: [DONE]\n\n", True)


async def test_a_body_that_is_no_stream_breaks_off_where_the_upstream_broke_off(passing: Gateway) -> None:
    async def die(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, ("content-length", "100"))
        await connection.raw(b"x" * 10)
        await connection.break_off()

    passing.upstream.script = die
    response = await passing.post(BODY)
    assert not response.complete
    assert b"error" not in response.body


# Case 7


async def test_an_upstream_that_is_down_is_a_502(mode: Mode) -> None:
    async with mode.gateway(upstream_url="http://127.0.0.1:9/v1") as gateway:
        response = await gateway.post(BODY)
        assert response.status == 502
        error = response.json["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["code"] == "upstream_unreachable"
        assert response.one("x-serac-route") == "base"


async def test_an_upstream_that_hangs_up_without_a_reply_is_a_502_and_is_asked_once(passing: Gateway) -> None:
    async def hang_up(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.break_off()

    passing.upstream.script = hang_up
    response = await passing.post(BODY)
    assert response.status == 502
    assert len(passing.upstream.requests) == 1


async def test_an_upstream_that_speaks_no_http_is_a_502(passing: Gateway) -> None:
    async def babble(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.raw(b"SSH-2.0-OpenSSH\r\n\r\n")
        await connection.break_off()

    passing.upstream.script = babble
    assert (await passing.post(BODY)).status == 502


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue is full: to whom connects, nothing is said at all."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_an_upstream_that_cannot_be_connected_to_in_time_is_a_504(mode: Mode, full_port: int) -> None:
    config = GatewayConfig(upstream=UpstreamConfig(connect_timeout_s=0.2, response_timeout_s=60))
    async with mode.gateway(config, upstream_url=f"http://127.0.0.1:{full_port}/v1") as gateway:
        response = await asyncio.wait_for(gateway.post(BODY), 10)
    assert (response.status, response.json["error"]["code"]) == (504, "upstream_timeout")


async def test_an_upstream_that_does_not_answer_in_time_is_a_504(mode: Mode) -> None:
    async def hang(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.client_left()

    config = GatewayConfig(upstream=UpstreamConfig(response_timeout_s=0.2))
    async with mode.gateway(config=config, upstream=ScriptedUpstream(hang)) as gateway:
        response = await gateway.post(BODY)
        assert response.status == 504
        assert response.json["error"]["code"] == "upstream_timeout"


async def test_the_gap_between_chunks_has_its_own_limit_and_the_total_has_none(mode: Mode) -> None:
    async def stall(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await asyncio.sleep(1.1)  # longer than the gap, shorter than the wait for the headers
        await connection.head(200, *EVENTS)
        for _ in range(6):
            await connection.chunk(b"data: 1\n\n")
            await asyncio.sleep(0.2)
        await connection.client_left()

    config = GatewayConfig(upstream=UpstreamConfig(response_timeout_s=2, chunk_timeout_s=1))
    async with mode.gateway(config=config, upstream=ScriptedUpstream(stall)) as gateway:
        response = await gateway.post(BODY)
        events = response.body.split(b"\n\n")
        assert events[:6] == [b"data: 1"] * 6  # which took longer than either limit
        assert b"upstream_timeout" in events[6]
        assert response.complete


async def test_a_base_model_request_does_not_wait_for_another_that_is_slow(passing: Gateway) -> None:
    async def first_is_slow(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        if len(passing.upstream.requests) == 1:
            await asyncio.sleep(0.5)
        await connection.whole(200, b"{}")

    passing.upstream.script = first_is_slow
    slow = asyncio.create_task(passing.post(BODY))
    await eventually(lambda: len(passing.upstream.requests) == 1)
    await passing.post(BODY)
    assert not slow.done()
    await slow
