"""Guards of the control plane: which role a call needs, and the principal for its handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.params import SkipValidation

from serac_gateway.auth.authenticator import Authenticator
from serac_gateway.auth.principals import EVERY_NAMESPACE, Principal, Role
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import PermissionDeniedError, UnsupportedMediaTypeError
from serac_gateway.observability.metrics import Instruments

NEEDED_ROLE = "role"
"""The handlers' `opt` that names the role they need; without it, `Role.EDIT`."""

_Connection = ASGIConnection[Any, Any, Any, Any]
AsyncGuard = Callable[[_Connection, BaseRouteHandler], Awaitable[None]]


def require_key(authenticator: Authenticator) -> AsyncGuard:
    """A Litestar guard: the request's API key must have the handler's role.

    The principal becomes `request.user`. A guard runs before the body is read. It raises AuthenticationError,
    PermissionDeniedError, or StoreUnavailableError if the key cannot be checked.
    """

    async def guard(connection: _Connection, handler: BaseRouteHandler) -> None:
        principal = await _authenticated(authenticator, connection)
        principal.require(Role(handler.opt.get(NEEDED_ROLE, Role.EDIT)))
        connection.scope["user"] = principal

    return guard


JSON_TYPE = "application/json"
NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl", JSON_TYPE)
TAKEN_TYPES = "media_types"
"""The handlers' `opt` that names the content types they take; without it, JSON alone."""


async def require_media_type(connection: _Connection, handler: BaseRouteHandler) -> None:
    """A Litestar guard: a body must have a content type that the handler takes.

    A web page can send other types, or none, to any host without asking.

    Raises:
        UnsupportedMediaTypeError: It has another one, or none.
    """
    scope = connection.scope
    if scope["type"] != ScopeType.HTTP or scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return
    headers = cast("Headers", scope["headers"])
    types = [value.decode("latin-1") for name, value in headers if name == b"content-type"]
    has_body = any(
        (name == b"content-length" and value != b"0") or name == b"transfer-encoding"
        for name, value in headers
    )
    taken = tuple(handler.opt.get(TAKEN_TYPES, (JSON_TYPE,)))
    essences = [value.partition(";")[0].strip().lower() for value in types]
    if (not types and not has_body) or (len(types) == 1 and essences[0] in taken):
        return
    sent_types = ", ".join(types)[:100]
    raise UnsupportedMediaTypeError(
        f"the body's content type is {sent_types!r}; send the header 'content-type: {taken[0]}'"
        if types
        else f"the body has no content type; send the header 'content-type: {taken[0]}'",
        field="content-type",
        details={"value": sent_types},
    )


def require_metrics_key(authenticator: Authenticator, instruments: Instruments) -> AsyncGuard:
    """A Litestar guard for /metrics: a key of role edit for every namespace, unless `metrics.open` is set.

    Metrics count the requests of all namespaces, so a key for some of them must not read them. It raises as
    `require_key`.
    """

    async def guard(connection: _Connection, handler: BaseRouteHandler) -> None:
        if instruments.open:
            return
        principal = await _authenticated(authenticator, connection)
        principal.require(Role.EDIT)
        if not principal.may_use(EVERY_NAMESPACE):
            raise PermissionDeniedError(
                "/metrics covers all namespaces, and this API key is bound to some; use one for every"
                " namespace, or set metrics.open where only Prometheus reaches /metrics"
            )

    return guard


async def _authenticated(authenticator: Authenticator, connection: _Connection) -> Principal:
    return await authenticator.authenticate(cast("Headers", connection.scope["headers"]))


def provide_principal(request: Request[Any, Any, Any]) -> Principal:
    """The principal of the request's API key, for handlers behind `require_key`."""
    principal: Principal = request.user
    return principal


Sender = NamedDependency[SkipValidation[Principal]]
"""Annotates the handlers' parameter `principal`."""


Keys = NamedDependency[SkipValidation[Authenticator]]
"""Annotates the handlers' parameter `keys`."""
