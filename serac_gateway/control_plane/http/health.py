"""Whether the process lives, and whether it decides on requests."""

from __future__ import annotations

import asyncio

from litestar import Controller, Response, get
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec

from serac_gateway.control_plane.http.dependencies import ControlPlaneContext
from serac_gateway.control_plane.http.schemas import Liveness, ReadinessReport
from serac_gateway.errors import StoreUnavailableError
from serac_gateway.observability.readiness import Readiness

_STORE_TIMEOUT_S = 1.0


class HealthController(Controller):
    """/health."""

    path = "/health"
    tags = ("health",)

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
    async def ready(self, state: State) -> Response[ReadinessReport]:
        """200 while everything is loaded and up to date; else 503, and what is missing."""
        readiness: Readiness = state.readiness
        missing = dict(readiness.missing)
        context: ControlPlaneContext | None = state.get("control_plane")
        if context is not None and (problem := context.follower.problem) is not None:
            missing["edits"] = problem
        ready = context is not None and not missing
        report = ReadinessReport(
            ready=ready, missing=missing, store="loading" if context is None else await _store_state(context)
        )
        return Response(report, status_code=200 if ready else 503)


async def _store_state(context: ControlPlaneContext) -> str:
    try:
        await asyncio.wait_for(context.store.ping(), _STORE_TIMEOUT_S)
    except StoreUnavailableError as error:
        return error.message
    except TimeoutError:
        return f"no answer within {_STORE_TIMEOUT_S:g} s"
    return "reachable"
