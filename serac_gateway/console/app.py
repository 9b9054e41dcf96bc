"""The console as an ASGI application: its pages, what they are given, and how every reply is protected."""

from __future__ import annotations

import logging
from typing import Any

from litestar import Litestar, Response
from litestar.datastructures import MutableScopeHeaders
from litestar.di import Provide
from litestar.enums import MediaType
from litestar.exceptions import HTTPException
from litestar.types import ControllerRouterHandler, Message, Scope

from serac_gateway.auth.api_keys import redacted
from serac_gateway.auth.authenticator import Authenticator
from serac_gateway.console.bulk import BulkPages
from serac_gateway.console.comparison import ComparisonPages
from serac_gateway.console.edit_changes import EditChangePages
from serac_gateway.console.edits import EditPages
from serac_gateway.console.exports import ExportPages
from serac_gateway.console.health import HealthPages
from serac_gateway.console.import_jobs import ImportDesk
from serac_gateway.console.imports import ImportPages
from serac_gateway.console.log import LogPages
from serac_gateway.console.login import LoginPages, login_page, see_login
from serac_gateway.console.oidc_login import OidcLoginPages
from serac_gateway.console.pages import rendered
from serac_gateway.console.paths import CONSOLE_PREFIX
from serac_gateway.console.planes import RefusedError
from serac_gateway.console.proposals import ProposalPages
from serac_gateway.console.sessions import Sessions
from serac_gateway.console.traffic import TrafficPages
from serac_gateway.console.try_it import TryPages
from serac_gateway.console.visits import AnyRequest, Doorkeeper, LoginNeededError, OldFormError, texts_of
from serac_gateway.errors import GatewayError

log = logging.getLogger(__name__)

MAX_FORM_BYTES = 1_000_000
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    # Not no-referrer: with it browsers send `Origin: null` with every form, and the form check needs it.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "vary": "Sec-Fetch-Site, Origin, Cookie, Accept-Language, HX-Request",
}
_PAGES: list[ControllerRouterHandler] = [
    LoginPages,
    OidcLoginPages,
    TryPages,
    EditPages,
    EditChangePages,
    BulkPages,
    ImportPages,
    ExportPages,
    ComparisonPages,
    ProposalPages,
    LogPages,
    TrafficPages,
    HealthPages,
]


def console_app(
    authenticator: Authenticator, sessions: Sessions | None = None, *, client_secret: str | None = None
) -> Litestar:
    """The ASGI application for /console and all below it.

    Requests must be made inside `planes.serving_console_with`. `sessions` are those of the process.
    `client_secret` is that of the client as which the identity provider logs people in.
    """
    door = Doorkeeper(sessions or Sessions(), authenticator, client_secret)
    desk = ImportDesk()
    return Litestar(
        _PAGES,
        path=CONSOLE_PREFIX,
        dependencies={
            "visit": Provide(door.provide_visit),
            "door": Provide(lambda: door, sync_to_thread=False),
            "desk": Provide(lambda: desk, sync_to_thread=False),
        },
        exception_handlers={
            LoginNeededError: lambda request, exc: _on_login_needed(door, request, exc),
            OldFormError: _on_old_form,
            RefusedError: lambda request, exc: _problem(request, exc.status, exc.detail),
            GatewayError: lambda request, exc: _problem(request, exc.status, exc.message),
            HTTPException: lambda request, exc: _problem(request, exc.status_code, exc.detail),
            Exception: _on_unexpected,
        },
        before_send=[_protect],
        request_max_body_size=MAX_FORM_BYTES,
        openapi_config=None,
        logging_config=None,
    )


async def _protect(message: Message, scope: Scope) -> None:
    """Add the headers that protect a page, where the reply has none of its own."""
    if message["type"] == "http.response.start":
        headers = MutableScopeHeaders.from_message(message)
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)


def _on_login_needed(door: Doorkeeper, request: AnyRequest, exc: LoginNeededError) -> Response[Any]:
    if request.headers.get("hx-request") == "true":
        return Response(
            rendered("_session_over.html", t=texts_of(request), path=request.url.path),
            status_code=401,
            media_type=MediaType.HTML,
        )
    if request.method in ("GET", "HEAD"):
        return see_login(request, exc.why)
    target = request.url.path
    return login_page(request, door, target=target, kept=exc.kept, why=exc.why or "login.over")


def _on_old_form(request: AnyRequest, exc: OldFormError) -> Response[Any]:
    content = rendered("old_form.html", t=texts_of(request), path=exc.path)
    return Response(content, status_code=403, media_type=MediaType.HTML)


def _on_unexpected(request: AnyRequest, exc: Exception) -> Response[Any]:
    log.error("%s %s failed", request.method, redacted(request.url.path), exc_info=exc)
    return _problem(request, 500, "the gateway failed on this page; its log says why")


def _problem(request: AnyRequest, status: int, detail: str) -> Response[Any]:
    """A page that says what is wrong; for htmx a part of one."""
    is_fragment = request.headers.get("hx-request") == "true"
    content = rendered(
        "_problem.html" if is_fragment else "problem.html",
        t=texts_of(request),
        path=request.url.path,
        status=status,
        detail=redacted(detail),
    )
    return Response(content, status_code=status, media_type=MediaType.HTML)
