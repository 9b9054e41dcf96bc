"""Reads the head of a request on /v1: its target, its sender, and the gateways that it has passed."""

from __future__ import annotations

import re
import secrets
from urllib.parse import unquote_to_bytes

from serac_gateway.auth.api_keys import KEY_PREFIX
from serac_gateway.auth.authenticator import OWN_HEADER, without_keys
from serac_gateway.auth.principals import Principal
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.paths import PREFIXES
from serac_gateway.data_plane.upstream.headers import end_to_end
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import InvalidRequestError, LoopDetectedError, WebSocketRefusedError

HOPS_HEADER = b"x-serac-hops"
MAX_HOPS = 8
"""A request that has passed so many gateways runs in a loop between replicas."""

_PREFIXES = tuple(prefix.encode() for prefix in PREFIXES)
_READERS = 4
_ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")
_NEVER_IN_A_PATH = re.compile(rb"[\x00-\x1f\x7f\\]")
_BEFORE_A_MODEL = frozenset({b"models", b"deployments", b"engines"})
"""Names of models have slashes, which clients escape."""


def _oddity(path: bytes) -> str | None:
    """What servers read in different ways in a path that is still percent-encoded; None: nothing."""
    before = b""
    for written in path.split(b"/"):
        segment = unquote_to_bytes(written)
        if _ESCAPE.search(segment):
            return "an escape within an escape"
        if _NEVER_IN_A_PATH.search(segment):
            return "a backslash or a control character"
        if b"/" in segment and before.lower() not in _BEFORE_A_MODEL:
            return "an escaped slash"
        for name in segment.split(b"/"):
            base = name.partition(b";")[0].strip()
            if base and not base.strip(b"."):
                return "a segment . or .."
        before = segment
    return None


def _unquoted(text: bytes) -> bytes:
    """`text` percent-decoded as often as a chain of readers behind us might do it."""
    for _ in range(_READERS):
        text = unquote_to_bytes(text)
    return text


class LoopGuard:
    """Recognises requests that this gateway has passed on before, by a mark in a header."""

    def __init__(self, mark: bytes | None = None) -> None:
        """Processes of one gateway share a `mark`; None: a new random one."""
        self.mark = mark or secrets.token_hex(6).encode()

    def header_for(self, exchange: Exchange) -> tuple[bytes, bytes]:
        """The header for the upstream: the marks of the gateways that the request has passed, and this one's.

        Raises:
            LoopDetectedError: It has passed this one before, or too many others.
        """
        hops = [hop for value in exchange.all_of(HOPS_HEADER) for hop in value.split(b",") if hop]
        if self.mark in hops or len(hops) >= MAX_HOPS:
            raise LoopDetectedError(
                f"this request has come through {len(hops)} gateways, this one among them or more than"
                f" {MAX_HOPS - 1}; set upstream.url to the model's server, not to a gateway in front of it",
                details={"reason": "loop", "limit": MAX_HOPS},
            )
        return HOPS_HEADER, b",".join([*hops, self.mark])


def refuse_websocket(exchange: Exchange) -> None:
    """Return unless the request opens a WebSocket.

    Raises:
        WebSocketRefusedError: It does.
    """
    upgrades = [value.lower() for value in exchange.all_of(b"upgrade")]
    if exchange.method == "GET" and any(b"websocket" in value for value in upgrades):
        raise WebSocketRefusedError(
            "WebSockets are not served here, since questions inside one would meet no edit; use HTTP, such as"
            " POST /v1/responses with stream=true, or connect to the upstream itself"
        )


def sender_of(exchange: Exchange, principal: Principal) -> str:
    """A stable name of the sender: of the API key, or without one of the client's address."""
    if principal.key_id is not None:
        return f"key:{principal.key_id}"
    return f"address:{client_of(exchange) or ''}"


def client_of(exchange: Exchange) -> str | None:
    """The client's IP address: as a trusted proxy states it, else that of the connection."""
    client = exchange.scope["client"]
    return client[0] if client else None


def target_of(exchange: Exchange) -> bytes:
    """Path and query string below /v1 or /openai, as the client wrote them.

    Raises:
        InvalidRequestError: The path could leave the upstream's base path, or has an API key in it.
    """
    path: bytes = exchange.scope["raw_path"]
    below = next((path.removeprefix(prefix) for prefix in _PREFIXES if path.startswith(prefix)), path)
    if below == path or (below and not below.startswith(b"/")):
        raise InvalidRequestError(
            f"path {path[:200].decode('latin-1')!r} is not on /v1; write it as /v1/…", field="path"
        )
    if (oddity := _oddity(below)) is not None:  # it could reach another path of the upstream
        raise InvalidRequestError(
            f"path {path[:200].decode('latin-1')!r} has {oddity}; write it out", field="path"
        )
    query: bytes = exchange.scope["query_string"]
    target = below + b"?" + query if query else below
    if KEY_PREFIX.encode() in _unquoted(target):
        raise InvalidRequestError(
            f"the URL contains an API key, which logs would keep; send it in {OWN_HEADER.decode()}",
            field="path",
        )
    return target


def passed_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The client's headers that are for the upstream: end to end, and no key or header of the gateway."""
    passed = end_to_end(headers)
    return without_keys((name, value) for name, value in passed if not name.startswith(b"x-serac-"))


def plain_json_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """`headers` for a body that the gateway has written: strict JSON in UTF-8, not encoded."""
    return [
        (name, b"application/json" if name == b"content-type" else value)
        for name, value in headers
        if name != b"content-encoding"
    ]
