"""A client that leaves stops the work for it, wherever it stands (docs/proxy_cases.md, cases 8, 9 and 10).

More of case 9, a client that leaves the queue for answers or an answer: test_answers_routes.py.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from serac_gateway.testing import ReceivedRequest, ScriptedConnection
from tests.http.modes import MODES, Mode
from tests.http.running_gateway import ENDPOINTS, EVENTS, OTHER_QUESTION, Gateway, chat
from tests.http.wire import connected, eventually, fetch, request_bytes


async def assert_left_no_trace(gateway: Gateway, *, clients: int) -> None:
    """What the metrics show of it: the clients that left (what nginx calls 499), and nothing that goes on."""
    await eventually(lambda: gateway.in_flight == 0)
    metric_lines = (await fetch(gateway.url, "/metrics", method="GET")).body.decode().splitlines()
    assert f"serac_clients_left_total {clients}.0" in metric_lines
    is_here = gateway.engine_url is None
    of_engine = ("serac_answers_open", "serac_decisions_open") if is_here else ("serac_engine_calls_open",)
    assert (gateway.engine_counts.open_answers, gateway.engine_counts.open_decisions) == (0, 0)
    for gauge in ("serac_requests_in_flight", *of_engine):
        assert f"{gauge} 0.0" in metric_lines


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("begun", [True, False])
async def test_a_client_that_leaves_closes_the_upstreams_socket(
    passing: Gateway, stream: bool, begun: bool
) -> None:
    """Case 8 where the reply has begun, case 9 where it has not; case 10 where it is no stream."""
    left = asyncio.Event()

    async def long_answer(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        if begun and stream:
            await connection.head(200, *EVENTS)
            await connection.chunk(b"data: 1\n\n")
        elif begun:
            await connection.head(200, ("content-type", "application/json"), ("content-length", "100"))
            await connection.raw(b"data: 1\n\n")
        await connection.client_left()
        left.set()

    passing.upstream.script = long_answer
    body = json.dumps(chat(OTHER_QUESTION, stream=stream)).encode()
    async with connected(passing.url) as (reader, writer):
        writer.write(request_bytes(passing.url, "POST", ENDPOINTS[0], [], body))
        await eventually(lambda: len(passing.upstream.requests) == 1)
        if begun:
            await reader.readuntil(b"data: 1\n\n")
    await asyncio.wait_for(left.wait(), 5)  # at once, but on a busy machine
    await assert_left_no_trace(passing, clients=1)


# Case 9


@contextmanager
def held(model: object, method: str) -> Iterator[Callable[[], int]]:
    """Keeps every call of a model's method waiting inside the context; gives how many were made."""
    release, calls, inner = threading.Event(), [], getattr(model, method)

    def waiting(*arguments: Any) -> Any:  # noqa: ANN401 - whatever the method takes and gives
        calls.append(arguments)
        release.wait(20)
        return inner(*arguments)

    setattr(model, method, waiting)
    try:
        yield lambda: len(calls)
    finally:
        release.set()
        setattr(model, method, inner)


@pytest.mark.parametrize(
    "mode", [mode for mode in MODES if mode.edited_questions], ids=lambda mode: mode.name
)
@pytest.mark.parametrize("stage", ["encoding", "scoring"])
async def test_a_client_that_leaves_while_its_request_is_decided_costs_the_upstream_nothing(
    mode: Mode, stage: str
) -> None:
    async def hang(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.client_left()

    async with mode.gateway() as gateway:
        gateway.upstream.script = hang
        model, method = (
            (gateway.encoder, "encode") if stage == "encoding" else (gateway.classifier, "classify")
        )
        with held(model, method) as calls:
            for number in range(6):  # two are being decided, four wait for a thread
                async with connected(gateway.url) as (_, writer):
                    body = json.dumps(chat(f"{OTHER_QUESTION} {number}")).encode()
                    writer.write(request_bytes(gateway.url, "POST", ENDPOINTS[0], [], body))
                    await eventually(lambda: gateway.in_flight == 1)
                    await eventually(lambda number=number: calls() == min(number + 1, 2))
                await eventually(lambda: gateway.in_flight == 0)
                await eventually(lambda: gateway.upstream.open_connections == 0)
            assert mode.speculate or gateway.upstream.requests == []
        await asyncio.sleep(0.1)
        assert calls() == 2  # those that waited were taken out of the queue
        assert mode.speculate or gateway.upstream.requests == []
        await assert_left_no_trace(gateway, clients=6)


async def test_a_client_that_leaves_during_its_upload_ends_the_upload(passing: Gateway) -> None:
    async with connected(passing.url) as (_, writer):
        head = [("content-length", "50000000"), ("content-type", "application/octet-stream")]
        writer.write(request_bytes(passing.url, "POST", "/v1/files", head, b"x" * 3_000_000))
        await writer.drain()
        await eventually(lambda: passing.upstream.open_connections == 1)
    await eventually(lambda: passing.upstream.open_connections == 0)
    await assert_left_no_trace(passing, clients=1)


async def test_a_client_that_leaves_in_the_middle_of_a_small_body_is_no_error_of_ours(
    passing: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(passing.url) as (_, writer):
        head = [("content-length", "1000")]
        writer.write(request_bytes(passing.url, "POST", ENDPOINTS[0], head, b'{"model":'))
        await writer.drain()
        await eventually(lambda: passing.in_flight == 1)
    await assert_left_no_trace(passing, clients=1)
    assert passing.upstream.requests == []
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
