"""Guards of the control plane: which role a call needs, and the principal for its handler."""

from __future__ import annotations

from typing import Any, cast

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import SkipValidation

from serac_gateway.auth.authenticator import Authenticator
from serac_gateway.auth.principals import Principal, Role
from serac_gateway.domain.headers import Headers

NEEDED_ROLE = "role"
"""The handlers' `opt` that names the role they need; without it, `Role.EDIT`."""


_STATE_KEY = "serac_principal"


async def demand_key(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """A Litestar guard: lets in who may call the handler, and remembers them for `provide_principal`."""
    authenticator: Authenticator = connection.app.state.authenticator
    principal = await authenticator.authenticate(cast("Headers", connection.scope["headers"]))
    principal.require(Role(handler.opt.get(NEEDED_ROLE, Role.EDIT)))
    connection.scope["state"][_STATE_KEY] = principal


def provide_principal(request: Request[Any, Any, Any]) -> Principal:
    """On whose behalf the request comes, for handlers behind `demand_key`."""
    principal: Principal = request.scope["state"][_STATE_KEY]
    return principal


def provide_keys(state: State) -> Authenticator:
    """What checks keys, for handlers that make them."""
    authenticator: Authenticator = state.authenticator
    return authenticator


Sender = NamedDependency[SkipValidation[Principal]]
"""Annotates the handlers' parameter `principal`."""


Keys = NamedDependency[SkipValidation[Authenticator]]
"""Annotates the handlers' parameter `keys`."""
