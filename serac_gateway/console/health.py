"""Health: whether everything works, of this gateway and the others on its store."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
from litestar import Controller, Response, get, post

from serac_gateway.auth.principals import EVERY_NAMESPACE, Role
from serac_gateway.console.paths import page_path
from serac_gateway.console.planes import RefusedError, together
from serac_gateway.console.visits import AnyRequest, Visit, Visiting
from serac_gateway.doctor.diagnosis import diagnosis
from serac_gateway.doctor.findings import Finding
from serac_gateway.errors import GatewayError, PermissionDeniedError

DOCTOR_LIMIT_S = 30.0
_looking = threading.Lock()
"""Held while `serac doctor` looks: once at a time in this process."""


class Diagnosed(msgspec.Struct, frozen=True, kw_only=True):
    """What `serac doctor` says."""

    findings: list[Finding] = []
    problem: str | None = None
    """Why it says nothing, in English."""


class HealthPages(Controller):
    """/console/n/{namespace}/health, and the way to another namespace."""

    @get("/n/{namespace:str}/health")
    async def health(self, visit: Visiting) -> Response[str]:
        """Readiness, store, edits by namespace, and for admins the gateways of the store."""
        return await _page(visit)

    @post("/n/{namespace:str}/health", status_code=200)
    async def diagnose(self, visit: Visiting) -> Response[str]:
        """Have `serac doctor` look, for admins: it tells of all namespaces, and asks the upstream a token."""
        visit.principal.require(Role.ADMIN)
        if EVERY_NAMESPACE not in visit.principal.namespaces:
            raise PermissionDeniedError(
                "what `serac doctor` says is about all namespaces, and this key is bound to some; log in with"
                " an admin's key for all",
                field="namespace",
            )
        return await _page(visit, diagnosed=await _diagnosed(visit))

    @get("/namespace")
    async def namespace(self, visit: Visiting, request: AnyRequest) -> Response[Any]:
        """Look at another namespace."""
        name = request.query_params.get("name", "").strip()
        if name not in visit.reachable:  # where it is, somebody may do less there than here
            name = visit.principal.namespace(name)
        return visit.redirect(page_path(name, "edits"))


async def _page(visit: Visit, *, diagnosed: Diagnosed | None = None) -> Response[str]:
    ready, stats, replicas = await together(
        visit.client.root("/health/ready"),
        visit.client.control("GET", "/stats"),
        visit.client.control("GET", "/replicas"),
    )
    return visit.page(
        "health.html",
        ready=ready.json,
        stats=_json(stats),
        replicas=(_json(replicas) or {}).get("replicas"),
        problem=stats.detail if isinstance(stats, RefusedError) else None,
        diagnosed=diagnosed,
        may_diagnose=visit.may("admin") and EVERY_NAMESPACE in visit.principal.namespaces,
        limit_s=int(DOCTOR_LIMIT_S),
    )


async def _diagnosed(visit: Visit) -> Diagnosed:
    """In a thread with a loop of its own: some checks would keep other requests waiting."""

    def look() -> Diagnosed:
        # Taken in the thread: one that is cancelled before it begins would never give it back.
        if not _looking.acquire(blocking=False):
            return Diagnosed(problem="it is looking already for somebody else; try again in a minute")
        try:
            work = diagnosis(visit.client.planes.config, file=None)
            return Diagnosed(findings=asyncio.run(asyncio.wait_for(work, DOCTOR_LIMIT_S)))
        finally:
            _looking.release()

    try:
        return await asyncio.wait_for(asyncio.to_thread(look), DOCTOR_LIMIT_S + 1)
    except TimeoutError:
        problem = f"it took longer than {DOCTOR_LIMIT_S:g} s; run `serac doctor` on the machine"
        return Diagnosed(problem=problem)
    except GatewayError as error:
        return Diagnosed(problem=error.message)


def _json(reply: Any) -> Any:  # noqa: ANN401 - a reply or a refusal
    return None if isinstance(reply, RefusedError) else reply.json
