"""What a proxy must not pass on as it is: headers of one connection (RFC 9110, section 7.6.1), redirects."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from serac_gateway.domain.headers import Headers

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


_NEVER_OF_ONE_CONNECTION = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"forwarded",
        b"host",
        b"via",
    }
)
"""Connection may not name these (RFC 9110, section 7.6.1): without them the upstream would read another
request than the gateway."""
_FORWARDING = b"x-forwarded-"


def end_to_end(headers: Headers, *, without: Collection[bytes] = ()) -> list[tuple[bytes, bytes]]:
    """`headers` in order, less the hop-by-hop ones, those that Connection names, and `without`.

    Call it before headers of the gateway's own are added: a client must not be able to remove those.
    """
    dropped = _HOP_BY_HOP.union(without) if without else _HOP_BY_HOP
    for name, value in headers:
        if name == b"connection":
            dropped |= _named(value)
    return [header for header in headers if header[0] not in dropped]


def _named(connection: bytes) -> set[bytes]:
    """The headers that a value of Connection takes for those of one connection."""
    names = {token.strip().lower() for token in connection.split(b",")}
    return {
        name for name in names if name not in _NEVER_OF_ONE_CONNECTION and not name.startswith(_FORWARDING)
    }


def redirecting_here(headers: Headers, *, base_url: str, target: bytes) -> Headers:
    """`headers`, with a Location below `base_url` relative to `target`, which the client requested.

    Servers redirect `/models/` to `http://their-host/v1/models`: followed, a request would go round the
    edits, or nowhere. The scheme may differ, for a server behind a TLS proxy does not know its own.
    """
    if all(name != b"location" for name, _ in headers):
        return headers
    base = urlsplit(base_url)
    below = f"//{base.netloc}{base.path}/".encode()
    up = b"../" * (target.partition(b"?")[0].count(b"/") - 1) or b"./"

    def here(location: bytes) -> bytes:
        scheme, _, rest = location.partition(b"//")
        if scheme not in (b"http:", b"https:") or not (b"//" + rest).startswith(below):
            return location
        return up + (b"//" + rest).removeprefix(below)

    return [(name, here(value) if name == b"location" else value) for name, value in headers]
