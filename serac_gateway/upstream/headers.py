"""Which headers belong to one connection only and are never passed on (RFC 9110, section 7.6.1)."""

from __future__ import annotations

from collections.abc import Collection

from serac_gateway.upstream.base import Headers

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


def end_to_end(headers: Headers, *, without: Collection[bytes] = ()) -> list[tuple[bytes, bytes]]:
    """`headers` in order, less the hop-by-hop ones, those that Connection names, and `without`."""
    named = {
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    }
    return [
        (name, value)
        for name, value in headers
        if name not in _HOP_BY_HOP and name not in named and name not in without
    ]
