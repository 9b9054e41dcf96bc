"""Whether the process lives, and whether it decides on requests."""

from __future__ import annotations

import asyncio

from litestar import Controller, Response, get
from litestar.di import NamedDependency, Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import SkipValidation

from serac_gateway.control_plane.http.dependencies import Context, ControlPlaneContext, current_context
from serac_gateway.control_plane.http.schemas import Liveness, ReadinessReport
from serac_gateway.errors import StoreUnavailableError
from serac_gateway.observability.readiness import Readiness

_STORE_TIMEOUT_S = 1.0


class HealthController(Controller):
    """/health."""

    path = "/health"
    tags = ("health",)
    dependencies = {"context": Provide(current_context, sync_to_thread=False)}  # noqa: RUF012 - Litestar's
    """Also while stored edits are being loaded, when /serac/v1 answers 503."""

    @get("/live", summary="Whether the process answers")
    async def live(self) -> Liveness:
        """True while the event loop runs."""
        return Liveness(live=True)

    @get(
        "/ready",
        summary="Whether requests are decided",
        description="Not while stored edits are loaded, nor when the edits in force are older than"
        " `store.max_staleness_s` allows, because the store cannot be reached or a longer outage is being"
        " caught up with. /v1 is served all the time, with the edits in memory.",
        responses={
            503: ResponseSpec(
                ReadinessReport, description="Still loading, or cut off", generate_examples=False
            )
        },
    )
    async def ready(
        self, readiness: NamedDependency[SkipValidation[Readiness]], context: Context
    ) -> Response[ReadinessReport]:
        """200 while everything is loaded and up to date; else 503, and what is missing."""
        missing = dict(readiness.missing)
        loaded = not missing
        if loaded and (problem := context.follower.problem) is not None:
            missing["edits"] = problem
        report = ReadinessReport(
            ready=not missing,
            missing=missing,
            store=await _store_state(context) if loaded else "loading",
            quarantined_namespaces=len(context.active_edits.quarantine.all()),
        )
        return Response(report, status_code=503 if missing else 200)


async def _store_state(context: ControlPlaneContext) -> str:
    try:
        await asyncio.wait_for(context.store.ping(), _STORE_TIMEOUT_S)
    except StoreUnavailableError as error:
        return error.message
    except TimeoutError:
        return f"no answer within {_STORE_TIMEOUT_S:g} s"
    return "reachable"
