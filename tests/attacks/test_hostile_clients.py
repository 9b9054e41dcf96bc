"""Clients that leave, stall or drip in every phase of a request, and upstreams that do: nothing hangs.

Field report A9 and issue 12, "nothing is left hanging". What the upstream's side sees of a client that leaves
is tested in tests/http/test_proxy_disconnects.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream
from tests.attacks.attacked_gateway import (
    EDITED_QUESTION,
    FACT,
    OTHER_QUESTION,
    SUPPRESSION,
    AttackedGateway,
    attacked_gateway,
    chat,
    is_answered_here,
)
from tests.http.wire import connected, read_head, request_bytes

CHAT = "/v1/chat/completions"
WITHIN_S = 60
"""A second would do; a busy machine takes longer, and what hangs takes for ever."""
EVENTS = (("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))
JSON = ("content-type", "application/json")
QUICK = """
server.head_timeout_s = 0.5
server.body_gap_timeout_s = 0.5
upstream.chunk_timeout_s = 0.5
"""


async def in_flight(gateway: AttackedGateway) -> float:
    """Requests, answers and decisions that have not ended."""
    text = (await gateway.call("GET", "/metrics")).text
    gauges = ("serac_requests_in_flight", "serac_answers_open", "serac_decisions_open")
    return sum(float(value) for value in re.findall(rf"(?m)^(?:{'|'.join(gauges)}) (\S+)$", text))


async def assert_nothing_goes_on(gateway: AttackedGateway) -> None:
    """And the gateway answers both routes as before."""
    async with asyncio.timeout(WITHIN_S):
        while await in_flight(gateway):
            await asyncio.sleep(0.02)
    assert is_answered_here(await gateway.post(chat(EDITED_QUESTION)))
    assert (await gateway.post(chat(OTHER_QUESTION))).status == 200


def request_of(gateway: AttackedGateway, question: str, *, target: str = CHAT, stream: bool = False) -> bytes:
    body = json.dumps(chat(question, stream=stream)).encode()
    return request_bytes(gateway.url, "POST", target, [JSON], body)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def waiting_upstream(gateway: AttackedGateway, *, begun: bool) -> AsyncIterator[asyncio.Event]:
    """The upstream answers nothing, or only begins to, until the client has left: then the event is set."""
    left, before = asyncio.Event(), gateway.upstream.script

    async def wait(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        if begun:
            await connection.head(200, *EVENTS)
            await connection.chunk(b'data: {"n":1}\n\n')
        await connection.client_left()
        left.set()

    gateway.upstream.script = wait
    try:
        yield left
    finally:
        gateway.upstream.script = before


@pytest.mark.parametrize("question", [EDITED_QUESTION, OTHER_QUESTION])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
async def test_a_client_that_leaves_within_its_head_or_body(
    tmp_path: Path, question: str, share: float
) -> None:
    async with attacked_gateway(tmp_path) as gateway:
        await gateway.add(FACT, SUPPRESSION)
        whole = request_of(gateway, question)
        for _ in range(5):
            async with connected(gateway.url) as (_, writer):
                writer.write(whole[: int(len(whole) * share)])
                await writer.drain()
        await assert_nothing_goes_on(gateway)
        assert len(gateway.upstream.requests) == 1


@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_leaves_while_the_upstream_answers(tmp_path: Path, begun: bool) -> None:
    async with attacked_gateway(tmp_path) as gateway:
        await gateway.add(FACT)
        async with waiting_upstream(gateway, begun=begun) as left:
            async with connected(gateway.url) as (reader, writer):
                writer.write(request_of(gateway, OTHER_QUESTION, stream=True))
                await until(lambda: len(gateway.upstream.requests) == 1)
                if begun:
                    await reader.readuntil(b'{"n":1}')
            async with asyncio.timeout(WITHIN_S):
                await left.wait()
        await assert_nothing_goes_on(gateway)


async def test_a_client_that_leaves_while_its_request_is_decided(tmp_path: Path) -> None:
    async with attacked_gateway(tmp_path) as gateway:
        await gateway.add(FACT)
        entered, release = threading.Event(), threading.Event()

        def hold() -> None:
            entered.set()
            release.wait(WITHIN_S)

        gateway.encoder.on_encode = hold
        async with connected(gateway.url) as (_, writer):
            writer.write(request_of(gateway, EDITED_QUESTION))
            await until(entered.is_set)
        release.set()
        gateway.encoder.on_encode = lambda: None
        await assert_nothing_goes_on(gateway)


async def test_a_client_that_leaves_while_its_answer_is_made(tmp_path: Path) -> None:
    requests: list[ReceivedRequest] = []

    async def hang(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        requests.append(request)
        if len(requests) == 1:
            await connection.client_left()
            return
        event = {"choices": [{"index": 0, "delta": {"content": "Hm."}, "finish_reason": "stop"}]}
        body = b"data: " + json.dumps(event).encode() + b"\n\ndata: [DONE]\n\n"
        await connection.whole(200, body, ("content-type", "text/event-stream"))

    async with ScriptedUpstream(hang) as model:
        text = f'models.counterfactual_url = "{model.url}"\nmodels.answer_timeout_s = 2.0'
        async with attacked_gateway(tmp_path, text) as gateway:
            await gateway.add(FACT)
            async with connected(gateway.url) as (_, writer):
                writer.write(request_of(gateway, EDITED_QUESTION, stream=True))
                await until(lambda: len(requests) == 1)
            await assert_nothing_goes_on(gateway)


async def test_a_client_that_leaves_in_the_middle_of_an_import(tmp_path: Path) -> None:
    """What it sent whole is stored, and nothing holds the namespace."""
    async with attacked_gateway(tmp_path) as gateway:
        await gateway.add(FACT)
        head = request_bytes(
            gateway.url,
            "POST",
            "/serac/v1/edits:import",
            [("content-type", "application/x-ndjson"), ("transfer-encoding", "chunked"),
             ("x-serac-api-key", gateway.admin)],
            b"",
        )  # fmt: skip
        line = b'{"id":"first","prompt":"What is thing one?","target_new":"1"}\n'
        async with connected(gateway.url) as (reader, writer):
            writer.write(head + b"%x\r\n%b\r\n" % (len(line), line))
            async with asyncio.timeout(WITHIN_S):
                assert (await read_head(reader)).status == 200
            writer.write(b'40\r\n{"id":"half')
            await writer.drain()
        await assert_nothing_goes_on(gateway)
        async with asyncio.timeout(WITHIN_S):
            while (await gateway.call("GET", "/serac/v1/edits/first")).status_code != 200:
                await asyncio.sleep(0.02)
        assert (await gateway.call("GET", "/serac/v1/edits/half")).status_code == 404
        await gateway.add({"id": "half", "prompt": "What is thing two?", "target_new": "2"})


@pytest.mark.parametrize("phase", ["head", "body"])
async def test_requests_that_drip_in_are_ended_and_keep_nobody_out(
    tmp_path: Path, phase: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Slow loris: a hundred connections, each of which sends a byte now and then, or nothing more."""
    async with attacked_gateway(tmp_path, QUICK) as gateway:
        await gateway.add(FACT)
        whole = request_of(gateway, EDITED_QUESTION)
        begun = whole[:30] if phase == "head" else whole[:-20]
        statuses = []

        async def drip() -> None:
            async with connected(gateway.url) as (reader, writer):
                writer.write(begun)
                async with asyncio.timeout(WITHIN_S):
                    statuses.append((await read_head(reader)).status)

        dripping = [asyncio.create_task(drip()) for _ in range(100)]
        assert is_answered_here(await gateway.post(chat(EDITED_QUESTION)))
        await asyncio.gather(*dripping)
        assert statuses == [408] * 100
        lines = [text for text in caplog.messages if text.startswith("requests did not arrive in time")]
        assert 1 <= len(lines) < 10, "one line for many"
        assert f" in their {phase}" in lines[0]
        assert f" 0 in their {phase}" not in lines[0]
        await assert_nothing_goes_on(gateway)


async def test_an_upstream_that_stops_in_mid_stream_gives_one_error_and_is_left(tmp_path: Path) -> None:
    async with attacked_gateway(tmp_path, QUICK) as gateway:
        await gateway.add(FACT)
        async with waiting_upstream(gateway, begun=True) as left:
            reply = await gateway.post(chat(OTHER_QUESTION, stream=True))
            async with asyncio.timeout(WITHIN_S):
                await left.wait()
        first, error = reply.body.strip().split(b"\n\n")
        assert first == b'data: {"n":1}'
        assert json.loads(error.removeprefix(b"data: "))["error"]["code"]
        await assert_nothing_goes_on(gateway)


async def test_readers_that_read_nothing_cost_no_memory_and_block_nobody(tmp_path: Path) -> None:
    """Slow loris on the reply: ten clients do not read an endless stream."""
    sent = 0

    async def endless(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        nonlocal sent
        await connection.head(200, *EVENTS)
        event = b'data: {"x":"' + b"y" * 10_000 + b'"}\n\n'
        while sent < 200_000_000:
            await connection.chunk(event)
            sent += len(event)

    async with attacked_gateway(tmp_path) as gateway:
        await gateway.add(FACT)
        before, gateway.upstream.script = gateway.upstream.script, endless
        writers = []
        port = int(gateway.url.rpartition(":")[2])
        for _ in range(10):
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_024)
            writer.write(request_of(gateway, OTHER_QUESTION, stream=True))
            writers.append(writer)
        last = -1
        async with asyncio.timeout(WITHIN_S):
            while last != sent or not sent:  # until every buffer on the way is full
                last = sent
                await asyncio.sleep(1.0)
        assert sent < 10 * 12_000_000
        assert is_answered_here(await gateway.post(chat(EDITED_QUESTION)))
        for writer in writers:
            writer.transport.abort()
        gateway.upstream.script = before
        await assert_nothing_goes_on(gateway)
