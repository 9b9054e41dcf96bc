"""The cookies of the console: the session's id, and the language."""

from __future__ import annotations

from litestar.datastructures import Cookie

from serac_gateway.console.languages import LANGUAGES
from serac_gateway.domain.headers import Headers

SESSION_COOKIE = "__Host-serac-console"
"""The prefix has browsers refuse it from another host, from plain HTTP and for a path of its own."""
LOOPBACK_COOKIE = "serac-console-"
"""The same on http://localhost, where not every browser keeps a Secure cookie. The port follows: cookies are
sent to every port of a host, and two gateways of one machine must not end each other's sessions."""
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
    if not is_loopback_host(host):
        return SESSION_COOKIE
    port = host.rpartition(":")[2]
    return LOOPBACK_COOKIE + (port if port.isdecimal() else "80")


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
