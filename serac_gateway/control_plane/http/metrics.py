"""GET /metrics: what Prometheus is told."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from litestar import Controller, Response, get
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler
from prometheus_client.exposition import generate_latest

from serac_gateway.auth.authenticator import Authenticator
from serac_gateway.auth.principals import EVERY_NAMESPACE, Role
from serac_gateway.control_plane.http.parameters import problems
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import PermissionDeniedError
from serac_gateway.observability.metrics import Instruments

_TEXT_FORMAT = "text/plain; version=0.0.4"


async def _demand_key(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """A Litestar guard. What is counted is of all tenants, so a key that is bound to some is not enough."""
    state = connection.app.state
    instruments: Instruments = state.instruments
    if instruments.open:
        return
    authenticator: Authenticator = state.authenticator
    principal = await authenticator.authenticate(cast("Headers", connection.scope["headers"]))
    principal.require(Role.EDIT)
    if not principal.may_use(EVERY_NAMESPACE):
        raise PermissionDeniedError(
            "/metrics tells of all namespaces, and this API key is bound to some; use one for every"
            " namespace, or set metrics.open where only Prometheus reaches /metrics"
        )


class MetricsController(Controller):
    """/metrics."""

    path = "/metrics"
    tags = ("health",)
    guards = (_demand_key,)
    security = ({"apiKey": []}, {})

    @get(
        media_type="text/plain",
        summary="Counts and times for Prometheus",
        description="In the text format of Prometheus. Where API keys are demanded it takes one of role edit"
        " for every namespace, unless `metrics.open` is set.",
        responses=problems(),
    )
    async def metrics(self, state: State) -> Response[bytes]:
        """Counters since the start of the process, and gauges of now."""
        instruments: Instruments = state.instruments
        text = await asyncio.to_thread(generate_latest, instruments.registry)
        return Response(text, media_type=_TEXT_FORMAT)
