"""Connections that are kept: which are used again, and which requests are sent again (case 19).

More of case 19: test_proxy_streams.py for the comments that keep a stream alive.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from serac_gateway.testing import ReceivedRequest, Script, ScriptedConnection, ScriptedUpstream
from tests.e2e.child_gateway import child_gateway
from tests.http.modes import MODES, Mode
from tests.http.running_gateway import ENDPOINTS, OTHER_QUESTION, Gateway, chat
from tests.http.wire import connected, fetch, read_head, request_bytes

BODY = json.dumps(chat(OTHER_QUESTION, stream=True)).encode()


async def idle_statuses(gateway: Gateway, *, idle_s: float, askers: int, rounds: int) -> set[int]:
    """The statuses of `askers * rounds` requests that come when connections have idled for about `idle_s`."""

    async def ask(asker: int) -> set[int]:
        statuses = set()
        for number in range(rounds):
            await asyncio.sleep(idle_s - 0.01 + (asker / askers + number % 25) * 0.001)
            statuses.add((await fetch(gateway.url, ENDPOINTS[0], BODY)).status)
        return statuses

    return set().union(*await asyncio.gather(*(ask(asker) for asker in range(askers))))


def assert_sent_once_each(upstream: ScriptedUpstream, requests: int) -> None:
    """No fewer came, and more only where a connection died silently and its request was sent on another."""
    assert requests <= len(upstream.requests) <= requests * 1.2


async def test_requests_spread_around_the_upstreams_idle_timeout_all_succeed(mode: Mode) -> None:
    async with mode.gateway(upstream=ScriptedUpstream(idle_timeout_s=0.2)) as gateway:
        assert await idle_statuses(gateway, idle_s=0.2, askers=20, rounds=15) == {200}
        assert_sent_once_each(gateway.upstream, 300)


@dataclass(frozen=True)
class IdleClient:
    """A client's connection to a gateway that serves as `serac serve` does."""

    connection: HTTPConnection
    since_s: float
    """When it was used last."""

    def status(self) -> int:
        self.connection.request("GET", "/health/live")
        with self.connection.getresponse() as response:
            response.read()
            return response.status


@pytest.fixture(scope="module")
def idle_client() -> Iterator[IdleClient]:
    with child_gateway("http://upstream.invalid/v1") as (url, _):
        client = IdleClient(HTTPConnection(urlsplit(url).netloc, timeout=60), time.monotonic())
        client.connection.auto_open = 0  # a connection that was closed is not replaced
        client.connection.connect()
        assert client.status() == 200
        yield client
        client.connection.close()


@pytest.mark.slow
@pytest.mark.usefixtures("idle_client")  # its time passes meanwhile
async def test_ten_thousand_requests_spread_around_an_idle_timeout_of_5_s_all_succeed() -> None:
    """The same share of them through a gateway of each mode."""
    rounds, askers = 9, -(-10_000 // (9 * len(MODES)))
    async with AsyncExitStack() as opened:
        gateways = [
            await opened.enter_async_context(mode.gateway(upstream=ScriptedUpstream(idle_timeout_s=5)))
            for mode in MODES
        ]
        asking = (idle_statuses(gateway, idle_s=5, askers=askers, rounds=rounds) for gateway in gateways)
        assert await asyncio.gather(*asking) == [{200}] * len(MODES)
        for gateway in gateways:
            assert_sent_once_each(gateway.upstream, askers * rounds)


@pytest.mark.slow
def test_a_clients_idle_connection_is_kept_for_75_s(idle_client: IdleClient) -> None:
    """Longer than load balancers keep theirs: one that closed first would meet their next request."""
    time.sleep(max(0.0, idle_client.since_s + 75 - time.monotonic()))
    assert idle_client.status() == 200


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


async def test_a_reused_connection_that_dies_silently_is_replaced(mode: Mode) -> None:
    async with mode.gateway(upstream=ScriptedUpstream(closing_on_the_second(b""))) as gateway:
        statuses = [(await gateway.post(BODY)).status for _ in range(3)]
        assert statuses == [200, 200, 200]
        assert gateway.upstream.connections_made == 2
        assert len(gateway.upstream.requests) == 4  # the second came twice


async def test_a_reused_connection_that_said_something_is_not_asked_again(mode: Mode) -> None:
    async with mode.gateway(upstream=ScriptedUpstream(closing_on_the_second(b"HTTP/1.1 20"))) as gateway:
        statuses = [(await gateway.post(BODY)).status for _ in range(3)]
        assert statuses == [200, 502, 200]
        assert len(gateway.upstream.requests) == 3


async def test_two_requests_on_one_connection_are_both_answered(passing: Gateway) -> None:
    async with connected(passing.url) as (reader, writer):
        for _ in range(2):
            writer.write(request_bytes(passing.url, "POST", ENDPOINTS[0], [], BODY))
            response = await read_head(reader)
            assert await reader.readexactly(int(response.one("content-length"))) == BODY
