"""Where the console lies."""

from __future__ import annotations

from urllib.parse import quote, urlencode

CONSOLE_PREFIX = "/console"
LOGIN_PATH = f"{CONSOLE_PREFIX}/login"
LOGOUT_PATH = f"{CONSOLE_PREFIX}/logout"
STATIC_PREFIX = f"{CONSOLE_PREFIX}/static"


def is_console_path(path: str) -> bool:
    """Whether a percent-decoded path belongs to the console."""
    return path == CONSOLE_PREFIX or path.startswith(f"{CONSOLE_PREFIX}/")


def page_path(namespace: str, *segments: str, **query: str | None) -> str:
    """The path of a page about `namespace`, with the parts of `query` that are not None or empty."""
    path = "/".join((f"{CONSOLE_PREFIX}/n/{namespace}", *(quote(segment, safe="") for segment in segments)))
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def safe_target(path: str | None, *, or_login: bool = False) -> str:
    """`path` if it is a page of the console, to be sent to after a form; else the console's first page.

    The login is none, unless `or_login`: who has logged in wants to see something else.
    """
    if path is None or not is_console_path(path.partition("?")[0]):
        return CONSOLE_PREFIX
    if path.startswith((LOGIN_PATH, LOGOUT_PATH)) and not (or_login and path == LOGIN_PATH):
        return CONSOLE_PREFIX
    if "\\" in path or not path.isprintable() or ".." in path:
        return CONSOLE_PREFIX
    return path
