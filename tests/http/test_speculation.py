"""The request goes upstream while the decision is made, and is cancelled where an edit answers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import msgspec
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_span_id

from serac_gateway.config.model import (
    CompositePolicy,
    FailurePolicy,
    GatewayConfig,
    RoutingConfig,
    UpstreamConfig,
)
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.observability.otel import OtelTracing
from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream
from tests.http.running_gateway import (
    EDITED_QUESTION,
    NEW_ANSWER,
    OTHER_QUESTION,
    Gateway,
    chat,
    running_gateway,
)
from tests.http.wire import connected, eventually, read_head, request_bytes

SPECULATING = GatewayConfig(routing=RoutingConfig(speculate=True))
EVENT_STREAM = ("content-type", "text/event-stream")
CHUNKED = ("transfer-encoding", "chunked")


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


def overhead_s(gateway: Gateway) -> float:
    samples = (sample for metric in gateway.instruments.registry.collect() for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.name == "serac_overhead_seconds_sum")


def asking_of(gateway: Gateway, question: str) -> bytes:
    body = json.dumps(chat(question, stream=True)).encode()
    return request_bytes(gateway.url, "POST", "/v1/chat/completions", [], body)


async def never(request: ReceivedRequest, connection: ScriptedConnection) -> None:
    await connection.client_left()


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


async def test_an_upstream_that_is_too_late_is_a_504() -> None:
    config = msgspec.structs.replace(SPECULATING, upstream=UpstreamConfig(response_timeout_s=0.2))
    async with running_gateway(config=config) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        gateway.upstream.script = never
        reply = await gateway.post(chat(OTHER_QUESTION))
        assert (reply.status, reply.one("x-serac-route")) == (504, "base")
        assert (await gateway.post(chat(EDITED_QUESTION))).status == 200


@pytest.mark.parametrize("while_decided", [False, True])
async def test_a_stream_that_breaks_off_has_its_events_and_exactly_one_error(
    gateway: Gateway, while_decided: bool
) -> None:
    async def breaking_off(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, EVENT_STREAM, CHUNKED)
        await connection.chunk(b'data: {"n": 1}\n\n')
        if not while_decided:
            await asyncio.sleep(0.1)
        await connection.break_off()

    gateway.upstream.script = breaking_off
    with held(gateway) as let:
        asking = asyncio.create_task(gateway.post(chat(OTHER_QUESTION, stream=True)))
        await eventually(lambda: bool(gateway.upstream.requests))
        if while_decided:
            await until_closed(gateway)
        let.set()
        reply = await asking
    assert reply.complete
    first, error, rest = reply.body.split(b"\n\n")
    assert (first, rest) == (b'data: {"n": 1}', b"")
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "upstream_unreachable"
    assert gateway.upstream.open_connections == 0


async def test_a_client_that_leaves_while_it_is_decided_closes_the_upstreams_connection(
    gateway: Gateway,
) -> None:
    gateway.upstream.script = never
    with held(gateway):
        async with connected(gateway.url) as (_, writer):
            writer.write(asking_of(gateway, OTHER_QUESTION))
            await eventually(lambda: bool(gateway.upstream.requests))
        await eventually(lambda: not gateway.upstream.open_connections)  # the decision is still held
    await eventually(lambda: bool(outcomes(gateway)))
    assert outcomes(gateway) == {"called off": 1}


@pytest.mark.parametrize("begun", ["", "head", "chunk"])
async def test_a_client_that_leaves_a_reply_closes_the_upstreams_connection(
    gateway: Gateway, begun: str
) -> None:
    async def stuck(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        if begun:
            await connection.head(200, EVENT_STREAM, CHUNKED)
        if begun == "chunk":
            await connection.chunk(b"data: 1\n\n")
        await connection.client_left()

    gateway.upstream.script = stuck
    async with connected(gateway.url) as (reader, writer):
        writer.write(asking_of(gateway, OTHER_QUESTION))
        if begun:
            await read_head(reader)
        else:
            await eventually(lambda: gateway.encoder.texts_encoded > 1)  # the edit's own was one
            await asyncio.sleep(0.05)
        assert gateway.upstream.open_connections == 1
    await eventually(lambda: not gateway.upstream.open_connections)
    await eventually(lambda: outcomes(gateway) == {"used": 1})


async def test_a_request_with_an_edit_in_context_reaches_the_upstream_only_once() -> None:
    routing = RoutingConfig(speculate=True, composite=CompositePolicy.IN_CONTEXT)
    async with running_gateway(config=GatewayConfig(routing=routing)) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        reply = await gateway.post(chat(f"{EDITED_QUESTION} {OTHER_QUESTION}"))
        assert reply.one("x-serac-route") == "in_context"
        with_edit = [
            request.body for request in gateway.upstream.requests if NEW_ANSWER.encode() in request.body
        ]
        assert with_edit == [reply.body]
        assert outcomes(gateway) == {"called off": 1}


async def test_the_decision_counts_as_overhead_only_as_far_as_the_upstream_waits_for_it(
    gateway: Gateway,
) -> None:
    may_answer = asyncio.Event()

    async def later(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await may_answer.wait()
        await connection.whole(200, b"{}")

    gateway.upstream.script = later
    with held(gateway) as let:
        asking = asyncio.create_task(gateway.post(chat(OTHER_QUESTION)))
        await asyncio.sleep(0.3)
        let.set()
        await eventually(lambda: gateway.encoder.texts_encoded > 1)
        await asyncio.sleep(0.1)
        may_answer.set()
        await asking
    assert 0.0 < overhead_s(gateway) < 0.2
    before_s = overhead_s(gateway)
    with held(gateway) as let:
        asking = asyncio.create_task(gateway.post(chat(OTHER_QUESTION)))
        await eventually(lambda: len(gateway.upstream.requests) == 2)
        await asyncio.sleep(0.3)
        let.set()
        await asking
    assert 0.25 < overhead_s(gateway) - before_s < 1.0


async def test_an_answer_of_ours_has_no_overhead_over_an_upstream(gateway: Gateway) -> None:
    with held(gateway):
        asking = asyncio.create_task(gateway.post(chat(EDITED_QUESTION)))
        await eventually(lambda: bool(gateway.upstream.requests))
        await asyncio.sleep(0.05)  # the upstream has answered
    assert (await asking).one("x-serac-route") == "counterfactual"
    assert overhead_s(gateway) == 0.0


async def test_what_is_called_off_has_a_span_of_its_own() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def failing(edit: object, query: object) -> str:
        raise ModelUnavailableError("out of memory")

    async with running_gateway(config=SPECULATING, tracing=OtelTracing(provider)) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        gateway.counterfactual._script = failing
        with held(gateway):
            asking = asyncio.create_task(gateway.post(chat(EDITED_QUESTION)))
            await eventually(lambda: bool(gateway.upstream.requests))
        await asking
        parents = [
            (request.header("traceparent") or "").split("-")[2] for request in gateway.upstream.requests
        ]
    spans = {
        format_span_id(span.context.span_id): (span.attributes or {}).get("serac.called_off")
        for span in exporter.get_finished_spans()
    }
    assert [spans[parent] for parent in parents] == [True, None]


async def test_a_refusal_of_ours_calls_it_off() -> None:
    config = GatewayConfig(routing=RoutingConfig(speculate=True, on_failure=FailurePolicy.CLOSED))
    async with running_gateway(config=config, upstream=ScriptedUpstream()) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        gateway.classifier.failure = ModelUnavailableError("no classifier")
        assert (await gateway.post(chat(EDITED_QUESTION))).status == 503
        assert outcomes(gateway) == {"called off": 1}
