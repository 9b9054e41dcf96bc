"""Health and traffic: whether everything works, who answers, and which edits are used."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Response, get

from serac_gateway.console.paths import page_path
from serac_gateway.console.planes import RefusedError, together
from serac_gateway.console.visits import AnyRequest, Visiting

_LISTED = 100


class HealthPages(Controller):
    """/console/n/{namespace}/health and /traffic, and the way to another namespace."""

    @get("/n/{namespace:str}/health")
    async def health(self, visit: Visiting) -> Response[str]:
        """Readiness, store, edits by namespace, and for admins the gateways of the store."""
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
        )

    @get("/n/{namespace:str}/traffic")
    async def traffic(self, visit: Visiting) -> Response[str]:
        """Who answered since the start, and the edits that governed most requests of this namespace."""
        stats = (await visit.client.control("GET", "/stats")).json
        recorded = (await visit.client.control("GET", "/traffic")).json
        counts = [count for count in stats["governed"] if count["namespace"] == visit.namespace][:_LISTED]
        prompts = await _prompts(visit, [count["edit_id"] for count in counts])
        total = sum(route["count"] for route in stats["routes"])
        return visit.page(
            "traffic.html",
            routes=sorted(stats["routes"], key=lambda route: -route["count"]),
            total=total,
            counts=counts,
            prompts=prompts,
            recorded=recorded,
        )

    @get("/namespace")
    async def namespace(self, visit: Visiting, request: AnyRequest) -> Response[Any]:
        """Look at another namespace."""
        name = request.query_params.get("name", "").strip()
        if name not in visit.reachable:  # where it is, somebody may do less there than here
            name = visit.principal.namespace(name)
        return visit.redirect(page_path(name, "edits"))


async def _prompts(visit: Visiting, edit_ids: list[str]) -> dict[str, str]:
    replies = await together(*(visit.client.control("GET", f"/edits/{edit_id}") for edit_id in edit_ids))
    return {
        edit_id: reply.json["prompt"]
        for edit_id, reply in zip(edit_ids, replies, strict=True)
        if not isinstance(reply, RefusedError)
    }


def _json(reply: Any) -> Any:  # noqa: ANN401 - a reply or a refusal
    return None if isinstance(reply, RefusedError) else reply.json
