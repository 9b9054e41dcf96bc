"""The cookies of the console: the session's id, and the language."""

from __future__ import annotations

from litestar.datastructures import Cookie

from serac_gateway.console.languages import LANGUAGES
from serac_gateway.domain.headers import Headers

SESSION_COOKIE = "__Host-serac-console"
"""The prefix has browsers refuse it from another host, from plain HTTP and for any path but "/"."""
LOOPBACK_COOKIE = "serac-console-"
"""The same on http://localhost, where not every browser keeps a Secure cookie. The port follows: cookies are
sent to every port of a host, and two gateways of one machine must not end each other's sessions. The path is
"/" here too, though the console's would be enough: so a login replaces a cookie of that name that somebody
planted there, where one for /console would stand beside it, and who wins would be the browser's choice."""
LOGIN_COOKIE = "__Host-serac-console-login"
"""Of a login by the identity provider that has begun and not ended."""
LANGUAGE_COOKIE = "serac-console-language"
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_YEAR_S = 31_536_000


def is_loopback_host(host: str) -> bool:
    """Whether a Host header, or an origin's host with its port, names this machine."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    port = host.removeprefix(name).removeprefix(":")
    if port and not port.isdecimal():
        return False
    return name.lower() in _LOOPBACK


def session_cookie_name(*, host: str) -> str:
    """The name under which a session's id comes with requests for `host`."""
    return SESSION_COOKIE if not is_loopback_host(host) else LOOPBACK_COOKIE + _port(host)


def login_cookie_name(*, host: str) -> str:
    """The name under which a login that has begun comes back."""
    return LOGIN_COOKIE if not is_loopback_host(host) else f"{LOOPBACK_COOKIE}login-{_port(host)}"


def session_cookie(session_id: str, *, host: str) -> Cookie:
    """It ends with the browser; JavaScript cannot read it; from other sites only links bring it along."""
    return Cookie(
        key=session_cookie_name(host=host),
        value=session_id,
        path="/",
        httponly=True,
        secure=not is_loopback_host(host),
        samesite="lax",
    )


def ended_session_cookie(*, host: str) -> Cookie:
    """The order to forget it."""
    return Cookie(
        key=session_cookie_name(host=host),
        value="",
        path="/",
        max_age=0,
        httponly=True,
        secure=not is_loopback_host(host),
        samesite="lax",
    )


def login_cookie(value: str, *, host: str, max_age_s: int) -> Cookie:
    """It lives as long as a login takes; the way back from the provider is a link, which brings it."""
    return Cookie(
        key=login_cookie_name(host=host),
        value=value,
        path="/",
        max_age=max_age_s,
        httponly=True,
        secure=not is_loopback_host(host),
        samesite="lax",
    )


def _port(host: str) -> str:
    port = host.rpartition(":")[2]
    return port if port.isdecimal() else "80"


def language_cookie(language: str, *, host: str) -> Cookie:
    """It says nothing about anybody, so it may last."""
    return Cookie(
        key=LANGUAGE_COOKIE,
        value=language,
        path="/console",
        max_age=_YEAR_S,
        httponly=True,
        secure=not is_loopback_host(host),
        samesite="lax",
    )


def chosen_language(cookies: dict[str, str], accept_language: str) -> str:
    """By the cookie, else the first of the browser's languages that there is, else English."""
    if cookies.get(LANGUAGE_COOKIE) in LANGUAGES:
        return cookies[LANGUAGE_COOKIE]
    for part in accept_language.split(",")[:20]:
        tag = part.partition(";")[0].strip().lower().partition("-")[0]
        if tag in LANGUAGES:
            return tag
    return LANGUAGES[0]


def header(headers: Headers, name: bytes) -> str:
    """The first header of that name; empty if there is none."""
    return next((value.decode("latin-1") for key, value in headers if key == name), "")
