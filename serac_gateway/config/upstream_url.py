"""The base URL of an upstream, split into what requests are built from."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from serac_gateway.errors import ConfigError


class UpstreamUrl(msgspec.Struct, frozen=True, kw_only=True):
    """A usable base URL."""

    base: str
    """Scheme, host, port and path, without a slash at its end."""
    query: str
    """Without the question mark; every request carries it. "" without one."""


def parse_upstream_url(url: str | None, *, key: str = "upstream.url") -> UpstreamUrl:
    """`url`, which the configuration has under `key`.

    Raises:
        ConfigError: It is not http:// or https:// with a host, or it has a fragment, user or password. The
            message repeats neither these nor the query, which may hold a secret.
    """
    try:
        parsed = urlsplit(url or "")
        host, port = parsed.hostname, parsed.port
    except ValueError:
        parsed, host, port = urlsplit(""), None, None
    if parsed.scheme not in ("http", "https") or not host or port == 0:
        raise ConfigError(
            f"{key} {without_secrets(url or '') or None!r} is not usable; give the base URL with /v1, such as"
            " http://127.0.0.1:8000/v1",
            field=key,
        )
    safe_url = without_secrets(url or "")
    if "@" in parsed.netloc:
        raise ConfigError(
            f"{key} {safe_url!r} has a user or password before the host; give the key in the environment, as"
            " SERAC_UPSTREAM_API_KEY (upstream.key_header says in which header it is sent)",
            field=key,
        )
    if parsed.fragment or (url or "").endswith("#"):
        raise ConfigError(f"{key} {safe_url!r} has a fragment (#…), which no server gets; drop it", field=key)
    return UpstreamUrl(base=f"{parsed.scheme}://{parsed.netloc}{parsed.path.rstrip('/')}", query=parsed.query)


def without_secrets(url: str) -> str:
    """`url` without user, password, query and fragment, for logs and replies."""
    scheme, separator, rest = url.partition("://")
    rest = rest if separator else scheme
    rest = rest.partition("#")[0].partition("?")[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}" * bool(separator) + host.rpartition("@")[2] + slash + path
