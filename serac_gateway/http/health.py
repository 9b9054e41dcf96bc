"""Whether the process lives, and whether it decides on requests."""

from __future__ import annotations

import asyncio

from litestar import Controller, Response, get
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec

from serac_gateway.errors import StoreUnavailableError
from serac_gateway.http.parts import ControlParts, Readiness
from serac_gateway.http.schemas import Liveness, ReadinessReport

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
        description="A store that fails after loading does not make the gateway unready: chat traffic goes on"
        " with the edits in memory, and taking every replica out for it would stop that too.",
        responses={503: ResponseSpec(ReadinessReport, description="Still loading", generate_examples=False)},
    )
    async def ready(self, state: State) -> Response[ReadinessReport]:
        """200 once everything is loaded; until then 503, and what is missing."""
        readiness: Readiness = state.readiness
        missing = dict(readiness.missing)
        parts: ControlParts | None = state.get("control_parts")
        ready = parts is not None and not missing
        report = ReadinessReport(
            ready=ready, missing=missing, store="loading" if parts is None else await _store_state(parts)
        )
        return Response(report, status_code=200 if ready else 503)


async def _store_state(parts: ControlParts) -> str:
    try:
        await asyncio.wait_for(parts.store.ping(), _STORE_TIMEOUT_S)
    except StoreUnavailableError as error:
        return error.message
    except TimeoutError:
        return f"no answer within {_STORE_TIMEOUT_S:g} s"
    return "reachable"
