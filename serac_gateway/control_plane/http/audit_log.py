"""The audit log, the namespaces and the counts over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from litestar import Controller, get
from litestar.params import QueryParameter
from litestar.response import Stream

from serac_gateway.auth.principals import EVERY_NAMESPACE, Principal
from serac_gateway.config.upstream_url import without_secrets
from serac_gateway.control_plane.http.dependencies import Context, ControlPlaneContext
from serac_gateway.control_plane.http.edit_streams import NAMESPACE_HEADER, NDJSON
from serac_gateway.control_plane.http.guards import Sender
from serac_gateway.control_plane.http.parameters import Namespace, PageLimit, problems
from serac_gateway.control_plane.http.schemas import DEFAULT_PAGE
from serac_gateway.observability.counts import EditCount, RouteCount
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.log_verification import log_evidence
from serac_gateway.stores.records import LOG_START, LogEntry

_EXPORT_PAGE = 500


class LogPage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a namespace's log."""

    entries: list[LogEntry]
    """Oldest first."""
    next_after: str
    """Pass it as `after` to go on reading; new entries come after it."""


class Namespaces(msgspec.Struct, frozen=True, kw_only=True):
    """All namespaces that ever got an edit."""

    namespaces: list[str]


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """How much is stored and what was done."""

    edits: dict[str, int]
    """Indexed edits by namespace."""
    routes: list[RouteCount]
    """Requests since start, by route and reason."""
    governed: list[EditCount]
    """Requests since start by the edit that governed them, or would have if it were not on trial."""
    upstream_url: str
    """Where the base model is served, up to and with /v1, without the query of its URL."""


class LogController(Controller):
    """/serac/v1/log, /namespaces and /stats."""

    tags = ("log",)

    @get("/log", summary="Read the log", responses=problems(400, 503))
    async def entries(
        self,
        namespace: Namespace,
        context: Context,
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
        entries = await context.store.log(namespace, after=after, limit=limit)
        return LogPage(entries=entries, next_after=entries[-1].log_id if entries else after)

    @get(
        "/log:export",
        media_type=NDJSON,
        summary="Export the log as NDJSON",
        description="One entry a line, oldest first, as `GET /log` has them. With `evidence=true`, all that"
        " is needed to verify the log without trusting this gateway, as `serac log verify` does: each entry"
        " with salt and record of its version, then how many versions each edit has, then the head.",
        response_headers=[NAMESPACE_HEADER],
        responses=problems(400, 503),
    )
    async def export(
        self,
        namespace: Namespace,
        context: Context,
        evidence: Annotated[bool, QueryParameter(description="With what verifies the log")] = False,
    ) -> Stream:
        """All entries of the namespace's log."""
        await context.store.ping()  # so that a store that fails gets a status, not a broken stream
        lines = _exported(context.store, namespace, evidence=evidence)
        return Stream(lines, media_type=NDJSON, headers={"x-serac-namespace": namespace})

    @get("/namespaces", summary="List namespaces", responses=problems(503))
    async def namespaces(self, context: Context, principal: Sender) -> Namespaces:
        """All namespaces that ever got an edit, sorted; of the API key's own, if it is bound to some."""
        return Namespaces(namespaces=await _namespaces(context, principal))

    @get("/stats", summary="Count edits and requests", responses=problems(503))
    async def stats(self, context: Context, principal: Sender) -> Stats:
        """Indexed edits by namespace, requests by route and reason; of the API key's own namespaces."""
        bound = None if principal.may_use(EVERY_NAMESPACE) else principal.namespaces
        return Stats(
            edits={name: context.active_edits.count(name) for name in await _namespaces(context, principal)},
            routes=context.route_counts.snapshot(bound),
            governed=context.route_counts.edits(bound),
            upstream_url=without_secrets(context.upstream_url),
        )


async def _exported(store: EditStore, namespace: str, *, evidence: bool) -> AsyncIterator[bytes]:
    if evidence:
        async for piece in log_evidence(store, namespace):
            yield msgspec.json.encode(piece) + b"\n"
        return
    after = LOG_START
    while entries := await store.log(namespace, after=after, limit=_EXPORT_PAGE):
        yield b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
        after = entries[-1].log_id


async def _namespaces(context: ControlPlaneContext, principal: Principal) -> list[str]:
    return [name for name in await context.store.namespaces() if principal.may_use(name)]
