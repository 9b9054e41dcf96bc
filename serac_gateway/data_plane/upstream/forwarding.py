"""Tells an upstream for whom it is asked: as RFC 7239 has it, or in the older headers that most read."""

from __future__ import annotations

from serac_gateway.config.model import ForwardedStyle
from serac_gateway.data_plane.upstream.base import UpstreamRequest

_FOR, _HOST, _PROTO = b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"


def forwarding_headers(request: UpstreamRequest, style: ForwardedStyle) -> list[tuple[bytes, bytes]]:
    """The request's headers, and in what `style` names its client, host and scheme.

    Values of earlier proxies stay: the client's address is appended to theirs, and their host and scheme are
    kept, for those are nearer to what the user sent.
    """
    headers = list(request.headers)
    match style:
        case ForwardedStyle.NONE:
            return headers
        case ForwardedStyle.FORWARDED:
            return [*headers, (b"forwarded", _element(request))]
        case ForwardedStyle.X_FORWARDED:
            return _x_forwarded(headers, request)


def _element(request: UpstreamRequest) -> bytes:
    client = request.client or "unknown"
    pairs = [f'for="[{client}]"' if ":" in client else f"for={client}"]
    if (host := _host(request)) is not None:
        pairs.append(f'host="{host.decode("latin-1")}"')
    pairs.append(f"proto={request.scheme}")
    return ";".join(pairs).encode("latin-1")


def _x_forwarded(headers: list[tuple[bytes, bytes]], request: UpstreamRequest) -> list[tuple[bytes, bytes]]:
    received = [value for name, value in headers if name == _FOR]
    client = (request.client or "unknown").encode()
    if not received or received[-1].rpartition(b",")[2].strip() != client:  # else a trusted proxy added it
        received.append(client)
    headers = [header for header in headers if header[0] != _FOR]
    present = {name for name, _ in headers}
    added = [(_FOR, b", ".join(received)), (_PROTO, request.scheme.encode())]
    if (host := _host(request)) is not None:
        added.append((_HOST, host))
    return [*headers, *(header for header in added if header[0] not in present)]


def _host(request: UpstreamRequest) -> bytes | None:
    """What the client called us; a quote in it would end the quoted string."""
    host = next((value for name, value in request.headers if name == b"host"), None)
    return None if host is None or b'"' in host or b"\\" in host else host
