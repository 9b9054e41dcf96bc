"""Streams pass as they come, end as they should, and stop when the client leaves (cases 3, 6-11)."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable

import pytest

from serac_gateway.config import GatewayConfig, ServerConfig, UpstreamConfig
from serac_gateway.testing import ReceivedRequest, Script, ScriptedConnection, ScriptedUpstream
from tests.http.running_gateway import OTHER_QUESTION, Gateway, chat, running_gateway
from tests.http.wire import connected, fetch, read_head, request_bytes

EVENTS = (("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))
BODY = json.dumps(chat(OTHER_QUESTION, stream=True)).encode()


async def eventually(condition: Callable[[], bool], within_s: float = 1.0) -> None:
    deadline = time.perf_counter() + within_s
    while not condition():
        assert time.perf_counter() < deadline, "did not happen in time"
        await asyncio.sleep(0.01)


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


async def _first_event_after_half_a_second(request: ReceivedRequest, connection: ScriptedConnection) -> None:
    await connection.head(200, *EVENTS)
    await asyncio.sleep(0.5)
    for number in range(2):
        await connection.chunk(b"data: %d\n\n" % number)
        await asyncio.sleep(0.3)
    await connection.end()


async def test_comments_keep_a_stream_alive_until_its_first_event_where_they_are_asked_for() -> None:
    config = GatewayConfig(server=ServerConfig(ping_interval_s=0.1))
    upstream = ScriptedUpstream(_first_event_after_half_a_second)
    async with running_gateway(config=config, upstream=upstream) as gateway:
        pings, rest = (await gateway.post(BODY)).body.split(b"data: 0")
        assert pings in [b": ping\n\n" * count for count in (3, 4)]
        assert rest == b"\n\ndata: 1\n\n"


async def test_no_comment_is_added_by_default(passing: Gateway) -> None:
    passing.upstream.script = _first_event_after_half_a_second
    assert (await passing.post(BODY)).body == b"data: 0\n\ndata: 1\n\n"


async def test_a_client_that_leaves_among_the_comments_closes_the_upstreams_socket() -> None:
    config = GatewayConfig(server=ServerConfig(ping_interval_s=0.05))

    async def hang(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.client_left()

    async with running_gateway(config=config, upstream=ScriptedUpstream(hang)) as gateway:
        async with connected(gateway.url) as (reader, writer):
            writer.write(request_bytes(gateway.url, "POST", "/v1/chat/completions", [], BODY))
            await reader.readuntil(b": ping\n\n")
        await eventually(lambda: gateway.upstream.open_connections == 0)
        await eventually(lambda: gateway.counts.in_flight == 0)
        assert gateway.counts.clients_left == 1


async def test_an_upstream_that_dies_among_the_comments_gives_one_error_event() -> None:
    config = GatewayConfig(server=ServerConfig(ping_interval_s=0.05))

    async def die(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await asyncio.sleep(0.12)
        await connection.break_off()

    async with running_gateway(config=config, upstream=ScriptedUpstream(die)) as gateway:
        reply = await gateway.post(BODY)
        assert reply.body.startswith(b": ping\n\n")
        assert json.loads(reply.body.split(b"data: ")[1])["error"]["code"] == "upstream_unreachable"


async def test_an_upstream_that_dies_in_a_stream_gives_one_whole_error_event(passing: Gateway) -> None:
    async def die(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.chunk(b'data: {"a":1}\n\ndata: {"ha')
        await connection.break_off()

    passing.upstream.script = die
    response = await passing.post(BODY)
    assert response.complete
    first, error, rest = response.body.split(b"\n\n")
    assert (first, rest) == (b'data: {"a":1}', b"")
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "upstream_unreachable"


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


async def test_an_upstream_that_is_down_is_a_502() -> None:
    async with running_gateway(upstream_url="http://127.0.0.1:9/v1") as gateway:
        response = await gateway.post(BODY)
        assert response.status == 502
        assert response.json["error"]["code"] == "upstream_unreachable"
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


async def test_an_upstream_that_does_not_answer_in_time_is_a_504() -> None:
    async def hang(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.client_left()

    config = GatewayConfig(upstream=UpstreamConfig(response_timeout_s=0.2))
    async with running_gateway(config=config, upstream=ScriptedUpstream(hang)) as gateway:
        response = await gateway.post(BODY)
        assert response.status == 504
        assert response.json["error"]["code"] == "upstream_timeout"


async def test_the_gap_between_chunks_has_its_own_limit_and_the_total_has_none() -> None:
    async def stall(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await asyncio.sleep(0.3)  # longer than the gap, shorter than the wait for the headers
        await connection.head(200, *EVENTS)
        for _ in range(6):
            await connection.chunk(b"data: 1\n\n")
            await asyncio.sleep(0.1)
        await connection.client_left()

    config = GatewayConfig(upstream=UpstreamConfig(response_timeout_s=1, chunk_timeout_s=0.2))
    async with running_gateway(config=config, upstream=ScriptedUpstream(stall)) as gateway:
        response = await gateway.post(BODY)
        events = response.body.split(b"\n\n")
        assert events[:6] == [b"data: 1"] * 6
        assert b"upstream_timeout" in events[6]
        assert response.arrivals[-1][0] - response.arrivals[-2][0] < 0.45  # not the headers' limit
        assert response.complete


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("begun", [True, False])
async def test_a_client_that_leaves_closes_the_upstreams_socket(
    passing: Gateway, stream: bool, begun: bool
) -> None:
    left = asyncio.Event()

    async def long_answer(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        if begun:
            await connection.head(200, *EVENTS)
            await connection.chunk(b"data: 1\n\n")
        await connection.client_left()
        left.set()

    passing.upstream.script = long_answer
    body = json.dumps(chat(OTHER_QUESTION, stream=stream)).encode()
    async with connected(passing.url) as (reader, writer):
        writer.write(request_bytes(passing.url, "POST", "/v1/chat/completions", [], body))
        await eventually(lambda: len(passing.upstream.requests) == 1)
        if begun:
            await reader.readuntil(b"data: 1\n\n")
    await asyncio.wait_for(left.wait(), 1)
    await eventually(lambda: passing.counts.in_flight == 0)
    assert passing.counts.clients_left == 1


async def test_a_client_that_leaves_while_its_request_is_decided_never_reaches_the_upstream(
    editing: Gateway,
) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()

    def slow_encode(texts: object) -> object:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(5)
        return encode(texts)

    encode = editing.encoder.encode
    editing.encoder.encode = slow_encode
    bodies = [json.dumps(chat(f"{number} {OTHER_QUESTION}")).encode() for number in range(6)]
    for body in bodies:  # two are being decided, four wait
        async with connected(editing.url) as (_, writer):
            writer.write(request_bytes(editing.url, "POST", "/v1/chat/completions", [], body))
            await writer.drain()
            await asyncio.wait_for(begun.wait(), 1)
            await asyncio.sleep(0.02)
    await eventually(lambda: editing.counts.in_flight == 0)
    encoded = editing.encoder.texts_encoded
    release.set()
    await asyncio.sleep(0.2)
    assert editing.upstream.requests == []
    assert editing.counts.clients_left == 6
    assert editing.encoder.texts_encoded <= encoded + 2  # the waiting ones were taken out of the queue


async def test_a_client_that_leaves_during_its_upload_ends_the_upload(passing: Gateway) -> None:
    async with connected(passing.url) as (_, writer):
        head = [("content-length", "50000000"), ("content-type", "application/octet-stream")]
        writer.write(request_bytes(passing.url, "POST", "/v1/files", head, b"x" * 3_000_000))
        await writer.drain()
        await eventually(lambda: passing.upstream.open_connections == 1)
    await eventually(lambda: passing.upstream.open_connections == 0)
    await eventually(lambda: passing.counts.in_flight == 0)
    assert passing.counts.clients_left == 1


async def test_a_client_that_leaves_in_the_middle_of_a_small_body_is_no_error_of_ours(
    passing: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(passing.url) as (_, writer):
        head = [("content-length", "1000")]
        writer.write(request_bytes(passing.url, "POST", "/v1/chat/completions", head, BODY))
        await writer.drain()
        await eventually(lambda: passing.counts.in_flight == 1)
    await eventually(lambda: passing.counts.in_flight == 0)
    assert passing.counts.clients_left == 1
    assert passing.upstream.requests == []
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


async def test_a_slow_reader_costs_no_memory(passing: Gateway) -> None:
    event = b"data: " + b"x" * 9_992 + b"\n\n"
    total = 10_000  # 100 MB

    async def flood(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        for _ in range(total):
            await connection.chunk(event)
        await connection.end()

    passing.upstream.script = flood
    async with connected(passing.url) as (reader, writer):
        reader._limit = 4_096  # the test's own buffer must not be what fills
        writer.write(request_bytes(passing.url, "POST", "/v1/chat/completions", [], BODY))
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.3)
        gc.collect()
        before = _resident_bytes()
        for _ in range(20):
            await reader.readexactly(1_024)
            await asyncio.sleep(0.05)
        assert _resident_bytes() - before < 5_000_000


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


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
async def kept_alive() -> AsyncIterator[Gateway]:
    async with running_gateway(upstream=ScriptedUpstream(idle_timeout_s=0.2)) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("askers", "rounds"), [(20, 25), pytest.param(40, 250, marks=pytest.mark.slow)]
)  # fmt: skip
async def test_requests_spread_around_the_upstreams_idle_timeout_all_succeed(
    kept_alive: Gateway, askers: int, rounds: int
) -> None:
    async def spread(start: float) -> set[int]:
        statuses = set()
        for number in range(rounds):
            await asyncio.sleep(0.19 + (start + number % 25) * 0.001)
            statuses.add((await fetch(kept_alive.url, "/v1/chat/completions", BODY)).status)
        return statuses

    results = await asyncio.gather(*(spread(start / askers) for start in range(askers)))
    assert set().union(*results) == {200}
    # No fewer, and more only where a connection died silently and its request was sent on another.
    assert askers * rounds <= len(kept_alive.upstream.requests) <= askers * rounds * 1.2


def closing_on_the_second(before_closing: bytes) -> Script:
    """Serve one request on each connection, then `before_closing` and the end."""
    seen: list[int] = []

    async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        seen.append(1)
        if len(seen) == 2:
            await connection.raw(before_closing)
            await connection.break_off()
        else:
            await connection.whole(200, request.body)

    return script


async def test_a_reused_connection_that_dies_silently_is_replaced() -> None:
    async with running_gateway(upstream=ScriptedUpstream(closing_on_the_second(b""))) as gateway:
        statuses = [(await gateway.post(BODY)).status for _ in range(3)]
        assert statuses == [200, 200, 200]
        assert gateway.upstream.connections_made == 2
        assert len(gateway.upstream.requests) == 4  # the second came twice


async def test_a_reused_connection_that_said_something_is_not_asked_again() -> None:
    async with running_gateway(upstream=ScriptedUpstream(closing_on_the_second(b"HTTP/1.1 20"))) as gateway:
        statuses = [(await gateway.post(BODY)).status for _ in range(3)]
        assert statuses == [200, 502, 200]
        assert len(gateway.upstream.requests) == 3


async def test_redirects_are_the_clients_business(passing: Gateway) -> None:
    async def redirect(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(307, b"", ("location", "http://127.0.0.1:9/elsewhere"))

    passing.upstream.script = redirect
    response = await passing.post(BODY)
    assert (response.status, response.one("location")) == (307, "http://127.0.0.1:9/elsewhere")


async def test_two_requests_on_one_connection_are_both_answered(passing: Gateway) -> None:
    async with connected(passing.url) as (reader, writer):
        for _ in range(2):
            writer.write(request_bytes(passing.url, "POST", "/v1/chat/completions", [], BODY))
            response = await read_head(reader)
            assert await reader.readexactly(int(response.one("content-length"))) == BODY
