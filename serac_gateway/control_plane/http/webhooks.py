"""The webhooks over HTTP: what is configured, what became of events, a test."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from litestar import Controller, get, post
from litestar.params import PathParameter, QueryParameter

from serac_gateway.auth.principals import EVERY_NAMESPACE, Principal, Role
from serac_gateway.control_plane.http.dependencies import Context
from serac_gateway.control_plane.http.guards import NEEDED_ROLE, Sender
from serac_gateway.control_plane.http.parameters import problems
from serac_gateway.errors import PermissionDeniedError
from serac_gateway.stores.outbox import MAX_ENDED, Delivery

WebhookName = Annotated[
    str, PathParameter(description="As configured", schema_extra={"pattern": "^[a-z][a-z0-9_-]{0,31}$"})
]


class WebhookReply(msgspec.Struct, frozen=True, kw_only=True):
    """A configured webhook."""

    name: str
    url: str
    """Scheme, host and port: the path may hold a token."""
    events: list[str]
    namespaces: list[str]
    secrets: int
    """How many sign each event; several while they are changed."""
    disabled: bool
    """The receiver answered 410 to this gateway; a reload sends to it again."""
    waiting: int
    """Events that wait for its receiver."""


class WebhookList(msgspec.Struct, frozen=True, kw_only=True):
    """All webhooks."""

    webhooks: list[WebhookReply]
    """By name."""


class DeliveryList(msgspec.Struct, frozen=True, kw_only=True):
    """The latest events of a webhook."""

    deliveries: list[Delivery]
    """Newest first, without their bodies."""


class WebhookTestReply(msgspec.Struct, frozen=True, kw_only=True):
    """How the receiver took an event of type `webhook.test`."""

    event_id: str
    delivered: bool
    status: int | None
    """Of the response; null: there was none."""
    problem: str | None
    took_ms: float


class WebhooksController(Controller):
    """/serac/v1/webhooks. The path of `:test` is explained in colon_paths.py."""

    tags = ("webhooks",)

    @get(
        "/webhooks",
        summary="List the webhooks",
        description="Those that the configuration names, and how many events wait for each. Needs a key of"
        " role admin for every namespace, as the other calls on webhooks.",
        responses=problems(503),
        opt={NEEDED_ROLE: Role.ADMIN},
    )
    async def configured(self, context: Context, principal: Sender) -> WebhookList:
        """Every webhook."""
        _require_every_namespace(principal)
        return WebhookList(
            webhooks=[
                WebhookReply(
                    name=state.endpoint.name,
                    url=state.endpoint.target.printable_url,
                    events=list(state.endpoint.config.events),
                    namespaces=list(state.endpoint.config.namespaces),
                    secrets=len(state.endpoint.secrets),
                    disabled=state.is_disabled,
                    waiting=state.waiting + state.unsaved,
                )
                for state in await context.webhooks.states()
            ]
        )

    @get(
        "/webhooks/{name:str}/deliveries",
        summary="List what became of a webhook's events",
        description="Those that wait and the latest that were delivered or given up, newest first, from all"
        " gateways of the store.",
        responses=problems(400, 404, 503),
        opt={NEEDED_ROLE: Role.ADMIN},
    )
    async def deliveries(
        self,
        name: WebhookName,
        context: Context,
        principal: Sender,
        limit: Annotated[
            int, QueryParameter(ge=1, le=MAX_ENDED, description="How many to return at most")
        ] = 50,
    ) -> DeliveryList:
        """The latest events of one webhook."""
        _require_every_namespace(principal)
        return DeliveryList(deliveries=await context.webhooks.recent(name, limit=limit))

    @post(
        "/webhooks/{name:str}/:test",
        status_code=200,
        summary="Send a webhook an event to try it",
        description="An event of type `webhook.test`, once and at once; the reply says how the receiver took"
        " it.",
        responses=problems(404, 503),
        opt={NEEDED_ROLE: Role.ADMIN},
    )
    async def test(self, name: WebhookName, context: Context, principal: Sender) -> WebhookTestReply:
        """Send it, and wait for the receiver's response."""
        _require_every_namespace(principal)
        begun_s = time.perf_counter()
        event, attempt = await context.webhooks.test(name)
        return WebhookTestReply(
            event_id=event.id,
            delivered=attempt.problem is None,
            status=attempt.status,
            problem=attempt.problem,
            took_ms=round((time.perf_counter() - begun_s) * 1_000, 1),
        )


def _require_every_namespace(principal: Principal) -> None:
    if not principal.may_use(EVERY_NAMESPACE):
        raise PermissionDeniedError(
            "webhooks concern all namespaces, and this API key is bound to some; use one for every namespace"
        )
