"""Traces of requests: W3C context in and out, spans and their attributes, and nothing when tracing is off.

Case 14 of docs/proxy_cases.md: no span holds a key.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from serac_gateway.config.model import TracingConfig
from serac_gateway.observability.otel import OtelTracing
from serac_gateway.server.tracing import open_tracing
from serac_gateway.testing import ReceivedRequest, ScriptedConnection
from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, OTHER_QUESTION, chat, running_gateway

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = ("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01")
TRACESTATE = ("tracestate", "vendor=opaque")


class Spans:
    """What was exported, and the tracing that exports it."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = OtelTracing(provider)

    def by_name(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def spans() -> Iterator[Spans]:
    made = Spans()
    yield made
    made.tracing.close()


async def test_a_request_that_is_passed_on_has_a_server_and_a_client_span_in_the_clients_trace(
    spans: Spans,
) -> None:
    async with running_gateway(tracing=spans.tracing) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        await gateway.post(chat(OTHER_QUESTION), TRACEPARENT, TRACESTATE)
        sent = gateway.upstream.requests[0]
    named = spans.by_name()
    server, upstream = named["POST /v1/chat/completions"], named["chat m"]
    assert (server.kind, upstream.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert {format_trace_id(span.context.trace_id) for span in named.values()} == {TRACE_ID}
    assert format_span_id(server.parent.span_id) == PARENT_ID
    assert upstream.parent.span_id == server.context.span_id
    parents = [value for name, value in sent.headers if name.lower() == "traceparent"]
    assert parents == [f"00-{TRACE_ID}-{format_span_id(upstream.context.span_id)}-01"]
    assert sent.header("tracestate") == "vendor=opaque"
    assert server.attributes["http.response.status_code"] == 200
    assert (server.attributes["serac.route"], server.attributes["serac.reason"]) == ("base", "no candidate")
    assert upstream.attributes[gen_ai.GEN_AI_OPERATION_NAME] == "chat"
    assert upstream.attributes[gen_ai.GEN_AI_REQUEST_MODEL] == "m"
    assert upstream.attributes[gen_ai.GEN_AI_PROVIDER_NAME] == "openai"


async def test_an_answer_of_ours_has_the_stages_of_its_decision_and_its_tokens(spans: Spans) -> None:
    async with running_gateway(tracing=spans.tracing) as gateway:
        edit = await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        await gateway.post(chat(EDITED_QUESTION))
    named = spans.by_name()
    decide, answer = named["serac.decide"], named["chat m"]
    assert decide.attributes["serac.edit.id"] == edit.id
    assert decide.attributes["serac.scope_probability"] == pytest.approx(1.0)
    stages = [named[f"serac.{name}"] for name in ("encode", "search", "classify")]
    assert {stage.parent.span_id for stage in stages} == {decide.context.span_id}
    times = [
        decide.start_time,
        *(moment for stage in stages for moment in (stage.start_time, stage.end_time)),
    ]
    assert times == sorted(times)
    assert answer.attributes[gen_ai.GEN_AI_PROVIDER_NAME] == "serac"
    assert answer.attributes[gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS] == len(NEW_ANSWER.split())
    server = named["POST /v1/chat/completions"]
    assert server.start_time <= decide.start_time <= decide.end_time <= answer.start_time
    assert answer.end_time <= server.end_time


async def test_no_span_holds_content_or_keys(spans: Spans) -> None:
    async with running_gateway(tracing=spans.tracing) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        for question in (EDITED_QUESTION, OTHER_QUESTION):
            await gateway.post(chat(question), ("authorization", "Bearer s3cret"))
    written = "".join(span.to_json() for span in spans.exporter.get_finished_spans())
    assert len(spans.exporter.get_finished_spans()) == 11
    for secret in ("Springfield", "Lisa", "egg", "s3cret"):
        assert secret not in written


async def test_an_upstream_that_fails_is_an_error_with_its_kind(spans: Spans) -> None:
    async with running_gateway(tracing=spans.tracing, upstream_url="http://127.0.0.1:9/v1") as gateway:
        await gateway.post(chat(OTHER_QUESTION))
    upstream, server = spans.by_name()["chat"], spans.by_name()["POST /v1/chat/completions"]
    assert (upstream.attributes["error.type"], upstream.status.status_code) == (
        "unreachable",
        StatusCode.ERROR,
    )
    assert (server.attributes["error.type"], server.attributes["http.response.status_code"]) == ("502", 502)


async def test_an_error_that_the_upstream_answers_with_is_reported_by_its_status(spans: Spans) -> None:
    async def busy(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(429, b"{}")

    async with running_gateway(tracing=spans.tracing) as gateway:
        gateway.upstream.script = busy
        await gateway.post(chat(OTHER_QUESTION))
    named = spans.by_name()
    assert named["chat"].attributes["error.type"] == "429"
    assert "error.type" not in named["POST /v1/chat/completions"].attributes


async def test_a_request_with_a_malformed_traceparent_begins_a_trace_of_its_own(spans: Spans) -> None:
    async with running_gateway(tracing=spans.tracing) as gateway:
        await gateway.post(chat(OTHER_QUESTION), ("traceparent", "00-nonsense-01"))
    assert spans.by_name()["POST /v1/chat/completions"].parent is None


async def test_without_tracing_the_clients_context_reaches_the_upstream_byte_for_byte() -> None:
    async with running_gateway() as gateway:
        await gateway.post(chat(OTHER_QUESTION), ("traceparent", "00-Whatever-IT-is"), TRACESTATE)
        (sent,) = gateway.upstream.requests
    assert sent.header("traceparent") == "00-Whatever-IT-is"
    assert sent.header("tracestate") == "vendor=opaque"


async def test_with_a_sample_ratio_of_zero_the_traceparent_is_unsampled() -> None:
    tracing = open_tracing(TracingConfig(endpoint="http://127.0.0.1:9", sample_ratio=0.0))
    async with running_gateway(tracing=tracing) as gateway:
        await gateway.post(chat(OTHER_QUESTION))
        (sent,) = gateway.upstream.requests
    tracing.close()
    flags = int(sent.header("traceparent").rpartition("-")[2], 16)
    assert flags & 1 == 0


def test_nothing_that_traces_is_imported_while_tracing_is_off() -> None:
    """redis-py imports what it finds of the SDK's metrics; that is its own business."""
    code = "import sys, serac_gateway.server.app; print(sys.modules.keys() & {*sys.argv[1:]})"
    ours = (
        "serac_gateway.observability.otel",
        "opentelemetry.sdk.trace.export",
        "opentelemetry.exporter.otlp",
    )
    done = subprocess.run([sys.executable, "-c", code, *ours], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_tracing_that_is_on_and_not_installed_stops_the_start_with_what_to_install() -> None:
    code = """
import sys
sys.modules["opentelemetry.exporter"] = None
from serac_gateway.errors import ConfigError
from serac_gateway.server.tracing import open_tracing
from serac_gateway.config.model import TracingConfig
try:
    open_tracing(TracingConfig(endpoint="http://127.0.0.1:4318"))
except ConfigError as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "serac_gateway[otel]"' in done.stdout
