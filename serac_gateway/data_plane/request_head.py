"""What the head of a request on /v1 tells: where it goes, who sends it, and where it has been."""

from __future__ import annotations

import re
import secrets

from serac_gateway.auth.api_keys import KEY_PREFIX
from serac_gateway.auth.authenticator import OWN_HEADER
from serac_gateway.auth.principals import Principal
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.errors import InvalidRequestError, LoopDetectedError

PREFIX = b"/v1"
HOPS_HEADER = b"x-serac-hops"
MAX_HOPS = 8
"""A request that has been through so many gateways goes round between replicas."""

_DOT_SEGMENT = re.compile(rb"(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)


class LoopGuard:
    """What this gateway signs a request with before it passes it on, to know it again."""

    def __init__(self, own: bytes | None = None) -> None:
        """`own` is what several processes sign with that are one gateway; None: a mark of its own."""
        self.own = own or secrets.token_hex(6).encode()

    def added_to(self, exchange: Exchange) -> tuple[bytes, bytes]:
        """The header for the upstream: the gateways that the request has been through, and this one.

        Raises:
            LoopDetectedError: It has been through this one, or through too many.
        """
        hops = [hop for value in exchange.all_of(HOPS_HEADER) for hop in value.split(b",") if hop]
        if self.own in hops or len(hops) >= MAX_HOPS:
            raise LoopDetectedError(
                f"this request has come through {len(hops)} gateways, this one among them or more than"
                f" {MAX_HOPS - 1}; set upstream.url to the model's server, not to a gateway in front of it",
                details={"reason": "loop", "limit": MAX_HOPS},
            )
        return HOPS_HEADER, b",".join([*hops, self.own])


def sender_of(exchange: Exchange, principal: Principal) -> str:
    """Who sends, by what stays the same: the API key, or without one the client's address."""
    if principal.key_id is not None:
        return f"key:{principal.key_id}"
    return f"address:{client_of(exchange) or ''}"


def client_of(exchange: Exchange) -> str | None:
    """The client's address, as `server.trusted_proxies` tell it or as it connects."""
    client = exchange.scope["client"]
    return client[0] if client else None


def target_of(exchange: Exchange) -> bytes:
    """Path and query below /v1, as the client wrote them."""
    path: bytes = exchange.scope["raw_path"]
    below = path.removeprefix(PREFIX)
    if below == path or (below and not below.startswith(b"/")):
        raise InvalidRequestError(
            f"path {path[:200].decode('latin-1')!r} is not on /v1; write it as /v1/…", field="path"
        )
    if _DOT_SEGMENT.search(below):  # it could leave the upstream's base path, with the gateway's own key
        raise InvalidRequestError(
            f"path {path[:200].decode('latin-1')!r} has a segment . or ..; write it out", field="path"
        )
    query: bytes = exchange.scope["query_string"]
    target = below + b"?" + query if query else below
    if KEY_PREFIX.encode() in target:
        raise InvalidRequestError(
            f"an API key stands in the URL, where logs would keep it; send it in {OWN_HEADER.decode()}",
            field="path",
        )
    return target
