"""The ASGI application: data plane and control plane under one roof."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import cast

from litestar import Litestar, asgi
from litestar.datastructures import State
from litestar.enums import ScopeType
from litestar.types import LifeSpanReceive, LifeSpanScope, LifeSpanSend, Receive, Scope, Send

from serac_gateway.auth.authenticator import Authenticator
from serac_gateway.control_plane.http.api import control_router, openapi_config
from serac_gateway.control_plane.http.colon_paths import route_path
from serac_gateway.control_plane.http.dependencies import CONTROL_PLANE
from serac_gateway.control_plane.http.health import HealthController
from serac_gateway.control_plane.http.metrics import MetricsController
from serac_gateway.control_plane.http.problems import EXCEPTION_HANDLERS
from serac_gateway.data_plane.request_id import add_request_id
from serac_gateway.observability.metrics import Instruments
from serac_gateway.observability.readiness import Readiness

DataPlaneApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Lease = Callable[[Scope], AbstractContextManager[None]]
"""Entered while a request is served."""


class _Gateway(Litestar):
    data_plane: DataPlaneApp
    lease: Lease

    async def __call__(
        self,
        scope: Scope | LifeSpanScope,
        receive: Receive | LifeSpanReceive,
        send: Send | LifeSpanSend,
    ) -> None:
        route_path(scope)
        if scope["type"] == "lifespan":  # as long as the process, and no request
            await super().__call__(scope, receive, send)
            return
        with self.lease(scope):
            # The parts that go with the lease: those in the app's state may change meanwhile.
            scope.setdefault("state", {})[CONTROL_PLANE] = self.state.get(CONTROL_PLANE)
            if scope["type"] == ScopeType.HTTP and scope["path"].startswith("/v1/"):
                # Litestar would only find the mount below, in a tenth of what passing a request on costs.
                await self.data_plane(scope, cast(Receive, receive), cast(Send, send))
                return
            await super().__call__(scope, receive, send)


def application(
    data_plane: DataPlaneApp,
    *,
    readiness: Readiness,
    authenticator: Authenticator,
    instruments: Instruments,
    max_control_body_bytes: int,
    lifespan: Sequence[Callable[[Litestar], AbstractAsyncContextManager[None]]] = (),
    lease: Lease = lambda scope: nullcontext(),
) -> Litestar:
    """Mount `data_plane` at /v1 beside the control plane, which answers once `state.control_plane` is set.

    `lease` holds on to what serves a request while it is served.
    """

    @asgi("/v1", is_mount=True, copy_scope=False)
    async def data_plane_mount(scope: Scope, receive: Receive, send: Send) -> None:
        await data_plane(scope, receive, send)

    app = _Gateway(
        [
            data_plane_mount,
            control_router(max_body_bytes=max_control_body_bytes),
            HealthController,
            MetricsController,
        ],
        openapi_config=openapi_config(),
        exception_handlers=EXCEPTION_HANDLERS,
        before_send=[add_request_id],
        logging_config=None,  # ours is set up by the command; Litestar's would take over the root logger
        lifespan=list(lifespan),
        state=State({"readiness": readiness, "authenticator": authenticator, "instruments": instruments}),
    )
    app.data_plane = data_plane
    app.lease = lease
    return app
