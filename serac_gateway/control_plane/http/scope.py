"""POST /serac/v1/scope: what would be decided about queries. No model answers."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated

from litestar import Controller, post
from litestar.openapi.spec import Example
from litestar.params import BodyKwarg

from serac_gateway.control_plane.http.dependencies import Context, ControlPlaneContext
from serac_gateway.control_plane.http.parameters import Namespace, problems
from serac_gateway.control_plane.http.schemas import (
    MAX_SCOPE_QUERIES,
    ScopeConversation,
    ScopeReply,
    ScopeRequest,
    scope_decision,
)
from serac_gateway.domain.queries import Bypass, Query, query_of_messages
from serac_gateway.errors import InvalidRequestError
from serac_gateway.routing.router import Route, RouteDecision

_BATCH = 16
"""Queries decided in one go: chat requests get their turn on the pool between two batches."""

_EXAMPLE = Example(
    summary="A query, and one with the turns before it",
    value={
        "queries": [
            "Who runs the harbour office of Marrowby?",
            {
                "messages": [
                    {"role": "user", "content": "Where is the harbour office of Marrowby?"},
                    {"role": "assistant", "content": "On Quay Street."},
                    {"role": "user", "content": "And who runs it?"},
                ]
            },
        ]
    },
)


class ScopeController(Controller):
    """/serac/v1/scope."""

    tags = ("scope",)

    @post(
        "/scope",
        status_code=200,
        summary="Decide on queries",
        description=f"For each of at most {MAX_SCOPE_QUERIES} queries what a chat request with these messages"
        " or with this text as its only turn would meet. Any text gets a decision, an empty one too.",
        responses=problems(400, 413, 503),
    )
    async def decide(
        self,
        data: Annotated[ScopeRequest, BodyKwarg(examples=[_EXAMPLE])],
        namespace: Namespace,
        context: Context,
    ) -> ScopeReply:
        """One decision a query, in order."""
        count = len(data.queries)
        if count > MAX_SCOPE_QUERIES:
            raise InvalidRequestError(
                f"{count} queries are too many; the limit is {MAX_SCOPE_QUERIES}; send several requests",
                field="queries",
                details={"value": count, "limit": MAX_SCOPE_QUERIES},
            )
        decisions: list[RouteDecision] = []
        for start in range(0, count, _BATCH):
            decisions += await _decisions(context, namespace, data.queries[start : start + _BATCH], data.user)
        return ScopeReply(decisions=[scope_decision(decision) for decision in decisions])


async def _decisions(
    context: ControlPlaneContext, namespace: str, asked: list[str | ScopeConversation], user: str | None
) -> list[RouteDecision]:
    found = [
        query_of_messages(
            [{"role": "user", "content": one}] if isinstance(one, str) else one.messages,
        )
        for one in asked
    ]
    queries = [one for one in found if isinstance(one, Query)]
    asker = None if user is None else f"user:{user}"
    decide = partial(context.router.decide, namespace, queries, asker=asker)
    decided = iter(await asyncio.get_running_loop().run_in_executor(context.decision_pool, decide))
    return [
        RouteDecision(route=Route.BYPASS, reason=one.reason) if isinstance(one, Bypass) else next(decided)
        for one in found
    ]
