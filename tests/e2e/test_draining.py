"""SIGTERM: no new requests, what runs may finish within the drain limit, and the exit code is 0 (case 20)."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream
from tests.http.wire import connected, fetch, read_body, read_head, request_bytes

ROOT = Path(__file__).parents[2]
EVENTS = (("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}).encode()
CHAT = "/v1/chat/completions"


@asynccontextmanager
async def draining_gateway(upstream: ScriptedUpstream, drain_s: float) -> AsyncIterator[tuple[str, Process]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.e2e.draining_gateway", upstream.url, str(drain_s)),
        stdout=PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        url = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()
        yield url, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def exit_code(process: Process, within_s: float) -> int:
    return await asyncio.wait_for(process.wait(), within_s)


async def until_refused(url: str) -> None:
    deadline = time.monotonic() + 3
    while True:
        try:
            await fetch(url, "/health/live", method="GET")
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        assert time.monotonic() < deadline, "new requests are still taken"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_live_streams_and_answers_finish_and_new_requests_are_refused(number: signal.Signals) -> None:
    async def slowly(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        if b'"stream": true' not in request.body:
            await asyncio.sleep(1.5)
            await connection.whole(200, b'{"whole": true}')
            return
        await connection.head(200, *EVENTS)
        for count in range(20):
            await connection.chunk(b"data: %d\n\n" % count)
            await asyncio.sleep(0.1)
        await connection.end()

    async with (
        ScriptedUpstream(slowly) as upstream,
        draining_gateway(upstream, 20) as (url, process),
        connected(url) as (reader, writer),
    ):
        writer.write(request_bytes(url, "POST", CHAT, [], BODY))
        stream = await read_head(reader)
        whole = asyncio.create_task(fetch(url, CHAT, b'{"model":"m"}'))
        while len(upstream.requests) < 2:
            await asyncio.sleep(0.01)
        process.send_signal(number)
        await until_refused(url)
        await read_body(reader, stream)
        assert stream.complete
        assert stream.body == b"".join(b"data: %d\n\n" % count for count in range(20))
        reply = await whole
        assert (reply.status, reply.json, reply.complete) == (200, {"whole": True}, True)
        assert await exit_code(process, 5) == 0
        assert process.stdout is not None
        assert await process.stdout.read() == b"ended\n"


async def test_a_stream_beyond_the_drain_limit_is_broken_off_on_both_sides() -> None:
    left = asyncio.Event()

    async def without_end(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.chunk(b"data: 1\n\n")
        await connection.client_left()
        left.set()

    async with (
        ScriptedUpstream(without_end) as upstream,
        draining_gateway(upstream, 1) as (url, process),
        connected(url) as (reader, writer),
    ):
        writer.write(request_bytes(url, "POST", CHAT, [], BODY))
        await reader.readuntil(b"data: 1\n\n")
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert await exit_code(process, 6) == 0
        assert 0.9 <= time.monotonic() - begun < 5
        await asyncio.wait_for(left.wait(), 1)


async def test_an_idle_gateway_ends_at_once_also_with_connections_kept_alive() -> None:
    async with (
        ScriptedUpstream() as upstream,
        draining_gateway(upstream, 20) as (url, process),
        connected(url) as (reader, writer),
    ):
        writer.write(request_bytes(url, "POST", CHAT, [], BODY))
        response = await read_head(reader)
        await read_body(reader, response)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert await exit_code(process, 5) == 0
        assert time.monotonic() - begun < 3
        assert await reader.read() == b""
