"""Many large bodies at once: the memory they take up together is bounded, and small requests are served."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from serac_gateway.config.model import GatewayConfig, ServerConfig
from tests.attacks.attacked_gateway import FACT, attacked_gateway
from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, Gateway, chat, running_gateway
from tests.http.wire import WireResponse, connected, read_body, read_head, request_bytes

MB = 1_000_000
LIMIT = 8 * MB
CONFIG = GatewayConfig(server=ServerConfig(max_body_memory_bytes=LIMIT))
CHAT = "/v1/chat/completions"
WITHIN_S = 60

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def bounded() -> AsyncIterator[Gateway]:
    async with running_gateway(config=CONFIG) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        yield gateway


async def begin(stack: AsyncExitStack, url: str, size: int, target: str = CHAT) -> Connection:
    """Send `size` bytes of a body that is announced twice as long, as fast as they are read."""
    reader, writer = await stack.enter_async_context(connected(url))
    headers = [("content-length", str(2 * size)), ("content-type", "application/json")]
    writer.write(request_bytes(url, "POST", target, headers, b""))
    beginning = b'{"model":"m","x":"'
    writer.write(beginning + b"x" * (size - len(beginning)))
    async with asyncio.timeout(WITHIN_S):
        with suppress(ConnectionError):  # refused meanwhile; the reply is there to be read
            await writer.drain()
    return reader, writer


async def reply_on(connection: Connection) -> WireResponse:
    reader, _ = connection
    async with asyncio.timeout(WITHIN_S):
        reply = await read_head(reader)
        await read_body(reader, reply)
    return reply


async def test_the_largest_unfinished_bodies_are_refused_and_small_requests_are_served(
    bounded: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with AsyncExitStack() as stack:
        unfinished = [await begin(stack, bounded.url, 3 * MB) for _ in range(12)]
        await asyncio.sleep(0.5)
        refused = [connection for connection in unfinished if connection[0]._buffer]  # type: ignore[attr-defined]
        assert len(refused) >= 12 - LIMIT // (3 * MB)
        for connection in refused:
            reply = await reply_on(connection)
            assert (reply.status, reply.one("retry-after")) == (503, "2")
            assert reply.json["error"]["code"] == "too_much_body_memory"
        for _ in range(3):
            reply = await bounded.post(chat(EDITED_QUESTION))
            assert reply.one("x-serac-route") == "counterfactual"
    lines = [record for record in caplog.records if "max_body_memory_bytes" in record.getMessage()]
    assert len(lines) == 1
    assert bounded.upstream.requests == []


async def test_clients_that_leave_give_their_room_back(bounded: Gateway) -> None:
    """Several times the limit in all, but never at once."""
    for _ in range(6):
        async with AsyncExitStack() as stack:
            connections = [await begin(stack, bounded.url, 3 * MB) for _ in range(2)]
            await asyncio.sleep(0.1)
            assert not any(connection[0].at_eof() for connection in connections)
        async with asyncio.timeout(WITHIN_S):
            while bounded.counts.in_flight:
                await asyncio.sleep(0.01)
    body = json.dumps(chat("x" * 7 * MB)).encode()
    assert (await bounded.post(body)).status == 200


async def test_a_body_that_alone_is_too_large_is_refused_in_words(bounded: Gateway) -> None:
    reply = await bounded.post(json.dumps(chat("x" * 2 * LIMIT)).encode())
    assert (reply.status, reply.one("retry-after")) == (503, "2")
    assert "server.max_body_memory_bytes" in reply.json["error"]["message"]


async def test_what_streams_through_takes_up_no_room(bounded: Gateway) -> None:
    body = b"x" * (4 * LIMIT)
    replies = await asyncio.gather(*(bounded.post(body, target="/v1/files") for _ in range(3)))
    assert [reply.status for reply in replies] == [200] * 3


async def test_bodies_of_the_control_plane_count_too(tmp_path: Path) -> None:
    """They are kept whole before they are decoded."""
    async with attacked_gateway(tmp_path, "server.max_body_memory_bytes = 200_000") as gateway:
        draft = {**FACT, "prompt": "x" * 300_000}
        reply = await gateway.call("POST", "/serac/v1/edits", json=draft)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
        assert reply.json()["limit"] == 200_000
        await gateway.add(FACT)
        lines = b"".join(
            b'{"prompt":"What is number %d?","target_new":"%d"}\n' % (number, number)
            for number in range(6_000)
        )
        imported = await gateway.call(
            "POST", "/serac/v1/edits:import", content=lines[:250_000].rpartition(b"\n")[0],
            headers={"content-type": "application/x-ndjson"},
        )  # fmt: skip
        assert imported.status_code == 200  # it is read line by line
