"""Login and logout, the choice of language, and the files that pages load."""

from __future__ import annotations

import hashlib
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import msgspec
from litestar import Controller, Response, get, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.enums import MediaType
from litestar.params import FromPath, SkipValidation

from serac_gateway.auth.authenticator import OWN_HEADER
from serac_gateway.auth.principals import Role
from serac_gateway.console.cookies import (
    ended_session_cookie,
    header,
    is_loopback_host,
    language_cookie,
    session_cookie,
    session_cookie_name,
)
from serac_gateway.console.form_checks import check_own_page, form_fields
from serac_gateway.console.languages import LANGUAGES
from serac_gateway.console.pages import STATIC_FILES, rendered, static_file
from serac_gateway.console.paths import CONSOLE_PREFIX, LOGIN_PATH, page_path, safe_target
from serac_gateway.console.planes import current_planes
from serac_gateway.console.sessions import MAX_KEPT_CHARS, KeptForm, Notice, Session
from serac_gateway.console.visits import AnyRequest, Doorkeeper, Visiting, texts_of
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import AuthenticationError, GatewayError, InvalidRequestError

_WHYS = {"out": "login.out", "over": "login.over", "ended": "login.key_ended"}
"""Why somebody sees the login: in its URL, and in the catalogue."""

Door = NamedDependency[SkipValidation[Doorkeeper]]


class LoginPages(Controller):
    """What can be reached without a session."""

    @get("/login")
    async def form(self, request: AnyRequest, door: Door) -> Response[Any]:
        """The login; somebody who has logged in may take another key."""
        return login_page(request, door, target=request.query_params.get("next"))

    @post("/login", status_code=200)
    async def log_in(self, request: AnyRequest, door: Door) -> Response[Any]:
        """Check the key and start a session under a new id; the one before, if any, ends."""
        headers = cast("Headers", request.scope["headers"])
        check_own_page(headers)
        fields = form_fields(await request.body(), header(headers, b"content-type"))
        host = header(headers, b"host")
        kept = _kept(fields.get("kept", ""))
        target = safe_target(kept.path if kept else fields.get("next"))
        if kept is not None and not fields.get("api_key", "").strip():
            # Logged in by a link, in another tab: this one has what was typed.
            session_id = request.cookies.get(session_cookie_name(host=host))
            resumed = door.sessions.resume(session_id, current_planes().config.console)
            if resumed is not None:
                return _with_kept(
                    resumed, kept, Response(None, status_code=303, headers={"location": target})
                )
        try:
            _check_keeps_secrets(header(headers, b"origin"), host)
            key = fields.get("api_key", "").strip()
            presented = [(OWN_HEADER, key.encode())] if key else []
            principal = await door.authenticator.authenticate(presented)
            principal.require(Role.EDIT)
        except GatewayError as error:
            return login_page(request, door, target=target, kept=kept, error=error)
        door.sessions.end(request.cookies.get(session_cookie_name(host=host)))
        session_id, session = door.sessions.start(principal.key_id)
        return _with_kept(session, kept, _see_other(target, session_cookie(session_id, host=host)))

    @post("/logout", status_code=200)
    async def log_out(self, visit: Visiting, door: Door) -> Response[Any]:
        """End the session, here and in the browser."""
        host = header(cast("Headers", visit.request.scope["headers"]), b"host")
        door.sessions.end(visit.request.cookies.get(session_cookie_name(host=host)))
        return _see_other(f"{LOGIN_PATH}?why=out", ended_session_cookie(host=host))

    @get("/language/{language:str}")
    async def language(self, request: AnyRequest, language: FromPath[str]) -> Response[Any]:
        """Read the console in another language from now on."""
        chosen = language if language in LANGUAGES else LANGUAGES[0]
        host = header(cast("Headers", request.scope["headers"]), b"host")
        return _see_other(
            safe_target(request.query_params.get("next"), or_login=True), language_cookie(chosen, host=host)
        )

    @get("/static/{name:str}")
    async def static(self, name: FromPath[str]) -> Response[bytes]:
        """A file that pages load; its URL has its digest, so browsers may keep it."""
        if name not in STATIC_FILES:
            return Response(b"", status_code=404, media_type=MediaType.TEXT)
        content = static_file(name)
        return Response(
            content,
            media_type=STATIC_FILES[name],
            headers={
                "cache-control": "public, max-age=31536000, immutable",
                "etag": f'"{hashlib.sha256(content).hexdigest()}"',
            },
        )

    @get("/")
    async def first(self, visit: Visiting) -> Response[Any]:
        """The console begins with the edits."""
        reply = visit.redirect(page_path(visit.namespace, "edits"))
        if visit.started is not None:
            host = header(cast("Headers", visit.request.scope["headers"]), b"host")
            reply.cookies = [session_cookie(visit.started, host=host)]
        return reply


def login_page(
    request: AnyRequest,
    door: Doorkeeper,
    *,
    target: str | None,
    kept: KeptForm | None = None,
    error: GatewayError | None = None,
    why: str | None = None,
) -> Response[str]:
    """The login, with what was typed before it in the form, so that the browser brings it back."""
    content = rendered(
        "login.html",
        t=texts_of(request),
        path=LOGIN_PATH,
        target=safe_target(target),
        kept=None if kept is None else msgspec.json.encode(kept).decode(),
        error=None if error is None else error.message,
        why=why or _WHYS.get(request.query_params.get("why", "")),
        keys_demanded=door.authenticator.required,
        provider=_provider_name(door),
    )
    status = 200 if error is None and why is None else 401
    if error is not None and not isinstance(error, AuthenticationError):
        status = error.status
    return Response(content, status_code=status, media_type=MediaType.HTML)


def _provider_name(door: Doorkeeper) -> str | None:
    """The host that logs people in; None: none does."""
    tokens = door.authenticator.tokens
    if tokens is None or tokens.config.login_client_id is None:
        return None
    return urlsplit(tokens.config.issuer or "").netloc


def see_login(request: AnyRequest, why: str | None) -> Response[Any]:
    """Send the browser to the login, and from there back to the page it wanted."""
    query = request.scope["query_string"].decode("latin-1")
    target = f"{request.url.path}?{query}" if query else request.url.path
    parameters = {} if target.rstrip("/") == CONSOLE_PREFIX else {"next": target}
    if (code := next((code for code, key in _WHYS.items() if key == why), None)) is not None:
        parameters["why"] = code
    path = f"{LOGIN_PATH}?{urlencode(parameters)}" if parameters else LOGIN_PATH
    return Response(None, status_code=303, headers={"location": path})


def _see_other(path: str, cookie: Cookie) -> Response[None]:
    return Response(None, status_code=303, headers={"location": path}, cookies=[cookie])


def _with_kept(session: Session, kept: KeptForm | None, reply: Response[None]) -> Response[None]:
    if kept is not None:
        session.kept = kept
        session.notify(Notice(key="login.text_kept"))
    return reply


def _kept(text: str) -> KeptForm | None:
    """What the login form brings back; None if there is nothing, or it is not what was rendered into it."""
    if not text or len(text) > MAX_KEPT_CHARS:
        return None
    try:
        kept = msgspec.json.decode(text, type=KeptForm)
    except msgspec.DecodeError:
        return None
    return kept if safe_target(kept.path) == kept.path else None


def _check_keeps_secrets(origin: str, host: str) -> None:
    """Return if the browser will keep a session cookie, which is for https and for this machine alone.

    Raises:
        InvalidRequestError: It comes by plain http from another machine, or a proxy hid the host.
    """
    _, separator, called = origin.partition("://")
    if separator and is_loopback_host(host) and not is_loopback_host(called):
        raise InvalidRequestError(
            f"the console is open at {origin[:200]!r}, and a proxy calls the gateway as {host[:200]!r}: its"
            " session would be as one of this machine; have the proxy pass the client's Host on (nginx:"
            " proxy_set_header Host $host)",
            field="host",
            details={"value": host[:200]},
        )
    if origin.startswith("http://") and not is_loopback_host(host):
        raise InvalidRequestError(
            f"the console is open at {origin[:200]!r}, where keys and sessions could be read on the way; put"
            " TLS in front of the gateway, or reach it as http://localhost through ssh -L",
            field="origin",
            details={"value": origin[:200]},
        )
