"""The audit log, the namespaces and the counts over HTTP."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, get
from litestar.params import QueryParameter

from serac_gateway.access import EVERY_NAMESPACE, Principal
from serac_gateway.http.authentication import Sender
from serac_gateway.http.control_parameters import Namespace, PageLimit, problems
from serac_gateway.http.parts import ControlParts, Parts
from serac_gateway.http.schemas import DEFAULT_PAGE, LogPage, Namespaces, Stats


class LogController(Controller):
    """/serac/v1/log, /namespaces and /stats."""

    tags = ("log",)

    @get("/log", summary="Read the log", responses=problems(400, 503))
    async def entries(
        self,
        namespace: Namespace,
        parts: Parts,
        after: Annotated[
            str,
            QueryParameter(
                description="Only entries after this log_id",
                schema_extra={"pattern": "^[0-9]{1,18}-[0-9]{1,18}$"},
            ),
        ] = "0-0",
        limit: PageLimit = DEFAULT_PAGE,
    ) -> LogPage:
        """Entries of the namespace's log, oldest first."""
        entries = await parts.store.log(namespace, after=after, limit=limit)
        return LogPage(entries=entries, next_after=entries[-1].log_id if entries else after)

    @get("/namespaces", summary="List namespaces", responses=problems(503))
    async def namespaces(self, parts: Parts, principal: Sender) -> Namespaces:
        """All namespaces that ever got an edit, sorted; of the API key's own, if it is bound to some."""
        return Namespaces(namespaces=await _namespaces(parts, principal))

    @get("/stats", summary="Count edits and requests", responses=problems(503))
    async def stats(self, parts: Parts, principal: Sender) -> Stats:
        """Indexed edits by namespace, requests by route and reason; of the API key's own namespaces."""
        bound = None if principal.may_use(EVERY_NAMESPACE) else principal.namespaces
        return Stats(
            edits={name: parts.live_edits.count(name) for name in await _namespaces(parts, principal)},
            routes=parts.route_counts.snapshot(bound),
            upstream_url=parts.upstream_url,
        )


async def _namespaces(parts: ControlParts, principal: Principal) -> list[str]:
    return [name for name in await parts.store.namespaces() if principal.may_use(name)]
