"""GET /metrics in the text format of Prometheus."""

from __future__ import annotations

import asyncio

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import SkipValidation
from prometheus_client.exposition import generate_latest

from serac_gateway.control_plane.http.parameters import problems
from serac_gateway.observability.metrics import Instruments

_TEXT_FORMAT = "text/plain; version=0.0.4"


class MetricsController(Controller):
    """/metrics; `require_metrics_key` guards it."""

    path = "/metrics"
    tags = ("health",)
    security = ({"apiKey": []}, {})

    @get(
        media_type="text/plain",
        summary="Counts and times for Prometheus",
        description="In the text format of Prometheus. Where API keys are demanded it takes one of role edit"
        " for every namespace, unless `metrics.open` is set.",
        responses=problems(),
    )
    async def metrics(self, instruments: NamedDependency[SkipValidation[Instruments]]) -> Response[bytes]:
        """Counters since the start of the process, and gauges of now."""
        text = await asyncio.to_thread(generate_latest, instruments.registry)
        return Response(text, media_type=_TEXT_FORMAT)
