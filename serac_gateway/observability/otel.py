"""Traces by OpenTelemetry: W3C trace context in and out, spans by the http and gen_ai conventions.

Only the spans that others may name as their parent, the request's and the upstream's, are open while the work
runs; all others are made afterwards from the request's marks. No span holds content.

Conventions: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ and …/http/http-spans/.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Self

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
)
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME, SERVICE_VERSION
from opentelemetry.semconv.attributes.url_attributes import URL_PATH
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from typing_extensions import override

from serac_gateway import __version__
from serac_gateway.config.model import TracingConfig
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.headers import Headers
from serac_gateway.observability.request_record import FinishedRequest
from serac_gateway.observability.tracing import RequestTrace, TracedRequest, Tracing
from serac_gateway.routing.router import Route, RouteDecision

_CONTEXT_HEADERS = (b"traceparent", b"tracestate")
_W3C = TraceContextTextMapPropagator()
_OPERATIONS = {Endpoint.COMPLETIONS.value: "text_completion"}
"""gen_ai.operation.name by endpoint; "chat" for all others."""
_SERAC = "serac"
# The gen_ai conventions are not stable yet: the package has their names in a private module that may move.
_GEN_AI_OPERATION = "gen_ai.operation.name"
_GEN_AI_PROVIDER = "gen_ai.provider.name"
_GEN_AI_MODEL = "gen_ai.request.model"
_GEN_AI_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"


class OtelTracing(Tracing):
    """Traces requests with a tracer of `provider`, which `close` shuts down."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("serac_gateway", __version__)

    @classmethod
    def exporting(cls, config: TracingConfig) -> Self:
        """Tracing that sends spans to the collector at `config.endpoint`, in batches, on a thread of its own.

        Headers that the collector requires, such as a key, come from OTEL_EXPORTER_OTLP_HEADERS.
        """
        provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(config.sample_ratio)),
            resource=Resource.create({SERVICE_NAME: config.service_name, SERVICE_VERSION: __version__}),
        )
        endpoint = f"{(config.endpoint or '').rstrip('/')}/v1/traces"
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        return cls(provider)

    @override
    def begin(self, request: TracedRequest) -> RequestTrace:
        return _OtelTrace(self._tracer, request)

    @override
    def close(self) -> None:
        self._provider.shutdown()


class _OtelTrace(RequestTrace):
    def __init__(self, tracer: Tracer, request: TracedRequest) -> None:
        self._tracer = tracer
        self._marks = request.marks
        # RequestMarks are on the monotonic clock, spans on the wall clock.
        self._offset_ns = time.time_ns() - time.perf_counter_ns()
        carrier = {
            name.decode(): value.decode("latin-1")
            for name, value in request.headers
            if name in _CONTEXT_HEADERS
        }
        path = request.raw_path.decode("latin-1")
        self._server = tracer.start_span(
            f"{request.method} {path}",
            context=_W3C.extract(carrier),
            kind=SpanKind.SERVER,
            start_time=self._ns(request.marks.begun),
            attributes={
                HTTP_REQUEST_METHOD: request.method,
                URL_PATH: path,
                "serac.request_id": request.request_id.decode(),
            },
        )
        self._context = set_span_in_context(self._server, Context())
        self._upstream: Span | None = None

    @override
    def upstream_headers(self, headers: Headers) -> Headers:
        self._upstream = self._tracer.start_span("chat", context=self._context, kind=SpanKind.CLIENT)
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, set_span_in_context(self._upstream, Context()))
        context = [(name.encode(), value.encode("latin-1")) for name, value in carrier.items()]
        return [*((name, value) for name, value in headers if name not in _CONTEXT_HEADERS), *context]

    @override
    def upstream_canceled(self) -> None:
        if self._upstream is not None:
            _set(self._upstream, {_GEN_AI_OPERATION: "chat", "serac.called_off": True})
            self._upstream.end()
            self._upstream = None

    @override
    def end(self, request: FinishedRequest) -> None:
        end_s = self._marks.begun + request.total_s
        self._end_upstream(request, end_s)
        self._add_decision(request)
        if self._marks.answer_begun is not None:
            self._add_answer(request, self._marks.answer_begun, end_s)
        server = self._server
        if request.status is not None:
            server.set_attribute(HTTP_RESPONSE_STATUS_CODE, request.status)
        _set(
            server,
            {
                "serac.route": request.route.value,
                "serac.reason": request.reason,
                "serac.namespace": request.namespace,
                "serac.key_id": request.key_id,
                "serac.client_left": request.client_left or None,
            },
        )
        if request.status is None or request.status >= 500:
            error = "client left" if request.client_left else str(request.status or "broken off")
            server.set_attribute(ERROR_TYPE, error)
            server.set_status(StatusCode.ERROR)
        server.end(self._ns(end_s))

    def _end_upstream(self, request: FinishedRequest, end_s: float) -> None:
        if self._upstream is None:
            return
        _name_by_gen_ai(self._upstream, request, "openai")
        if self._marks.upstream_answered is not None and request.status is not None:
            self._upstream.set_attribute(HTTP_RESPONSE_STATUS_CODE, request.status)
        error = request.upstream_error
        if error is None and self._marks.upstream_answered and request.status and request.status >= 400:
            error = str(request.status)
        if error is not None:
            self._upstream.set_attribute(ERROR_TYPE, error)
            self._upstream.set_status(StatusCode.ERROR)
        self._upstream.end(self._ns(end_s))

    def _add_decision(self, request: FinishedRequest) -> None:
        """The span of the decision and, laid end to end before its end, those of its stages."""
        if self._marks.decide_begun is None or request.decide_s is None:
            return
        end_s = self._marks.decide_begun + request.decide_s
        decide = self._tracer.start_span(
            "serac.decide", context=self._context, start_time=self._ns(self._marks.decide_begun)
        )
        if request.decision is not None:
            _set(decide, _decision_attributes(request.decision))
            timings, context = request.decision.timings, set_span_in_context(decide, Context())
            stages = (
                ("serac.encode", timings.encode_s),
                ("serac.search", timings.search_s),
                ("serac.classify", timings.classify_s),
            )
            begun_s = end_s - sum(stage_s for _, stage_s in stages)
            for name, stage_s in stages:
                if stage_s:
                    span = self._tracer.start_span(name, context=context, start_time=self._ns(begun_s))
                    span.end(self._ns(begun_s + stage_s))
                begun_s += stage_s
        decide.end(self._ns(end_s))

    def _add_answer(self, request: FinishedRequest, begun_s: float, end_s: float) -> None:
        span = self._tracer.start_span("chat", context=self._context, start_time=self._ns(begun_s))
        _name_by_gen_ai(span, request, _SERAC)
        if request.route is Route.COUNTERFACTUAL:
            span.set_attribute(_GEN_AI_OUTPUT_TOKENS, request.answer_tokens)
        else:
            span.set_attribute(ERROR_TYPE, request.reason)
            span.set_status(StatusCode.ERROR)
        span.end(self._ns(min(end_s, self._marks.upstream_sent or end_s)))

    def _ns(self, mark_s: float) -> int:
        return int(mark_s * 1e9) + self._offset_ns


def _name_by_gen_ai(span: Span, request: FinishedRequest, provider: str) -> None:
    """Name the span "{operation} {model}" and set its attributes, as the conventions have it."""
    operation = _OPERATIONS.get(request.path, "chat")
    span.update_name(operation if request.model is None else f"{operation} {request.model}")
    _set(
        span,
        {
            _GEN_AI_OPERATION: operation,
            _GEN_AI_PROVIDER: provider,
            _GEN_AI_MODEL: request.model,
        },
    )


def _decision_attributes(decision: RouteDecision) -> dict[str, AttributeValue | None]:
    edit = decision.scoped_edit
    return {
        "serac.edit.id": None if edit is None else edit.id,
        "serac.edit.version": None if edit is None else edit.version,
        "serac.withheld": decision.withheld is not None or None,
        "serac.scope_probability": decision.scope_probability,
        "serac.similarity": decision.similarity,
    }


def _set(span: Span, attributes: Mapping[str, AttributeValue | None]) -> None:
    """Set the attributes that are not None."""
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})
