"""The upstream is asked while the decision is made; what an edit answers is called off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from serac_gateway.config import FailurePolicy, GatewayConfig, RoutingConfig
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream
from tests.http.running_gateway import (
    EDITED_QUESTION,
    NEW_ANSWER,
    OTHER_QUESTION,
    Gateway,
    chat,
    running_gateway,
)
from tests.http.wire import eventually

SPECULATING = GatewayConfig(routing=RoutingConfig(speculate=True))


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway(config=SPECULATING) as running:
        await running.add(EDITED_QUESTION, NEW_ANSWER)
        yield running


def outcomes(gateway: Gateway) -> dict[str, float]:
    return {
        sample.labels["outcome"]: sample.value
        for metric in gateway.instruments.registry.collect()
        for sample in metric.samples
        if sample.name == "serac_sent_ahead_total"
    }


@contextmanager
def held(gateway: Gateway) -> Iterator[threading.Event]:
    """No decision is made inside, or before the event is set."""
    gateway.encoder.held_until = let = threading.Event()
    try:
        yield let
    finally:
        let.set()


async def until_closed(gateway: Gateway) -> None:
    async with asyncio.timeout(5):
        while gateway.upstream.open_connections:
            await asyncio.sleep(0.005)


async def test_what_no_edit_governs_is_the_upstreams_reply_to_one_request(gateway: Gateway) -> None:
    body = (
        b'{"model":"m", "messages": [{"role":"user","content":"%b"}], "x": 1e-7, "x": 2}'
        % OTHER_QUESTION.encode()
    )
    for _ in range(3):
        reply = await gateway.post(body)
        assert (reply.status, reply.body, reply.one("x-serac-route")) == (200, body, "base")
    assert [request.body for request in gateway.upstream.requests] == [body] * 3
    assert gateway.upstream.connections_made == 1  # it is kept
    assert outcomes(gateway) == {"used": 3}


async def test_the_upstream_is_asked_before_the_decision(gateway: Gateway) -> None:
    async def empty(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(200, b"{}")

    gateway.upstream.script = empty
    with held(gateway):
        asking = asyncio.create_task(gateway.post(chat(OTHER_QUESTION)))
        await eventually(lambda: len(gateway.upstream.requests) == 1)
    assert (await asking).body == b"{}"


async def test_what_an_edit_answers_is_called_off(gateway: Gateway) -> None:
    async def never(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.client_left()

    gateway.upstream.script = never
    reply = await gateway.post(chat(EDITED_QUESTION))
    assert reply.json["choices"][0]["message"]["content"] == NEW_ANSWER
    await until_closed(gateway)
    assert outcomes(gateway) == {"called off": 1}


async def test_an_answer_that_fails_is_asked_of_the_upstream_once_more(gateway: Gateway) -> None:
    def failing(edit: object, query: object) -> str:
        raise ModelUnavailableError("out of memory")

    gateway.counterfactual._script = failing
    reply = await gateway.post(chat(EDITED_QUESTION))
    assert (reply.status, reply.one("x-serac-route")) == (200, "bypass")
    assert outcomes(gateway) == {"called off": 1}


async def test_an_upstream_that_fails_says_so_only_where_it_is_needed(gateway: Gateway) -> None:
    async def dying(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        raise ConnectionError

    gateway.upstream.script = dying
    assert (await gateway.post(chat(OTHER_QUESTION))).status == 502
    assert (await gateway.post(chat(EDITED_QUESTION))).status == 200


async def test_a_client_that_leaves_while_it_is_decided_closes_the_upstreams_connection(
    gateway: Gateway,
) -> None:
    async def never(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.client_left()

    gateway.upstream.script = never
    asking = asyncio.create_task(gateway.post(chat(OTHER_QUESTION)))
    async with asyncio.timeout(5):
        while not gateway.upstream.open_connections:
            await asyncio.sleep(0.005)
    asking.cancel()
    await asyncio.wait([asking])
    await until_closed(gateway)


async def test_a_refusal_of_ours_calls_it_off() -> None:
    config = GatewayConfig(routing=RoutingConfig(speculate=True, on_failure=FailurePolicy.CLOSED))
    async with running_gateway(config=config, upstream=ScriptedUpstream()) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        gateway.classifier.failure = ModelUnavailableError("no classifier")
        assert (await gateway.post(chat(EDITED_QUESTION))).status == 503
        assert outcomes(gateway) == {"called off": 1}
