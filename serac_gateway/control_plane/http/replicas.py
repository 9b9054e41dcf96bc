"""The gateways of the store over HTTP."""

from __future__ import annotations

import asyncio
from datetime import datetime

import msgspec
from litestar import Controller, get

from serac_gateway.auth.principals import Role
from serac_gateway.control_plane.http.dependencies import Context
from serac_gateway.control_plane.http.guards import NEEDED_ROLE, Sender
from serac_gateway.control_plane.http.parameters import problems


class ReplicaState(msgspec.Struct, frozen=True, kw_only=True):
    """A live gateway."""

    id: str
    name: str
    """Host and process."""
    started_at: datetime
    is_this: bool
    """Whether it is the one that answers."""
    behind: dict[str, int]
    """By namespace, how many entries of its log are stored and not applied there yet."""


class Replicas(msgspec.Struct, frozen=True, kw_only=True):
    """The live gateways."""

    replicas: list[ReplicaState]
    """Oldest first."""


class ReplicasController(Controller):
    """/serac/v1/replicas."""

    tags = ("store",)

    @get(
        "/replicas",
        summary="List the gateways of the store",
        description="Those heard from within 3 s, and how far each is behind the log; of the API key's own"
        " namespaces, if it is bound to some.",
        responses=problems(503),
        opt={NEEDED_ROLE: Role.ADMIN},
    )
    async def live(self, context: Context, principal: Sender) -> Replicas:
        """Every live gateway, and what it has not applied yet."""
        registry = context.store.replicas()
        namespaces = [name for name in await context.store.namespaces() if principal.may_use(name)]
        # Positions before heads: an entry that comes between them counts as not applied, never the reverse.
        applied = await asyncio.gather(*(registry.applied(name) for name in namespaces))
        heads = await asyncio.gather(*(context.store.log_head(name) for name in namespaces))
        live = sorted((await registry.live()).values(), key=lambda replica: (replica.started_at, replica.id))
        return Replicas(
            replicas=[
                ReplicaState(
                    id=replica.id,
                    name=replica.name,
                    started_at=replica.started_at,
                    is_this=replica.id == context.heartbeat.replica.id,
                    behind={
                        name: head.length - (positions[replica.id].length if replica.id in positions else 0)
                        for name, head, positions in zip(namespaces, heads, applied, strict=True)
                    },
                )
                for replica in live
            ]
        )
