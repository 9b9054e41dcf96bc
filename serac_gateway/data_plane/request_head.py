"""Reads the head of a request on /v1: its target, its sender, and the gateways that it has passed."""

from __future__ import annotations

import re
import secrets
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from serac_gateway.auth.api_keys import KEY_PREFIX
from serac_gateway.auth.audience_labels import AudienceLabels
from serac_gateway.auth.authenticator import OWN_HEADER, without_keys
from serac_gateway.auth.principals import Principal
from serac_gateway.config.model import OidcConfig
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.paths import PREFIXES
from serac_gateway.data_plane.upstream.headers import end_to_end
from serac_gateway.domain.audiences import Caller
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import InvalidRequestError, LoopDetectedError, WebSocketRefusedError

HOPS_HEADER = b"x-serac-hops"
MAX_HOPS = 8
"""A request that has passed so many gateways runs in a loop between replicas."""

_PREFIXES = tuple(prefix.encode() for prefix in PREFIXES)
_KEY_PREFIX = KEY_PREFIX.encode()
_NO_TOKENS = OidcConfig()
_CACHED_PATHS = 1_024
_CACHED_PATH_BYTES = 256
"""Of a longer path the judgement is not kept: clients choose what is kept here."""
_READERS = 4
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_OTHER_ESCAPE = re.compile(rb"%[uU][0-9A-Fa-f]{4}")
"""How some servers of old write a character of 16 bits."""
_BEFORE_A_MODEL = frozenset({"models", "deployments", "engines"})
"""Names of models have slashes, which clients escape."""
_LOOK_ALIKES = str.maketrans(
    {
        **dict.fromkeys("\uff0f\u2044\u2215\u29f8\u2571\u27cb\u1735\u2cc6\u2100\u2101\u2105\u2106", "/"),
        **dict.fromkeys("\uff3c\ufe68\u2216\u20e5\u29f5\u29f9\u2572\u27cd", "\\"),
        **dict.fromkeys("\uff0e\u2024\ufe52\u3002\uff61\ufe12\u06d4\u0701\u0702\ua4f8", "."),
        **{"\u2025": "..", "\ufe30": "..", "\u2026": "...", "\ufe19": "..."},
        **dict.fromkeys("\uff1b\ufe54\ufe14\u037e", ";"),
        **dict.fromkeys("\uff1f\ufe56\ufe16\u2047\u2048\u2049\uff03\ufe5f", "?"),
        **dict.fromkeys("\uff05\ufe6a", "%"),
    }
)
"""What becomes a sign of paths where a server normalises (NFKC), or writes text in a small character set."""


def _oddity(path: bytes) -> str | None:
    """What servers read in different ways in a path that is still percent-encoded; None: nothing."""
    return _cached_oddity(path) if len(path) <= _CACHED_PATH_BYTES else _judged_oddity(path)


@lru_cache(maxsize=_CACHED_PATHS)
def _cached_oddity(path: bytes) -> str | None:
    return _judged_oddity(path)


def _judged_oddity(path: bytes) -> str | None:
    if _OTHER_ESCAPE.search(path):
        return "an escape like %u002e"
    before = ""
    for written in path.split(b"/"):
        try:
            segment = unquote_to_bytes(written).decode()
        except UnicodeDecodeError:  # an over-long encoding of a dot or slash is none either
            return "bytes that are not UTF-8"
        may_hold_slash = before.lower() in _BEFORE_A_MODEL
        if (oddity := _oddity_of_segment(segment, may_hold_slash=may_hold_slash)) is not None:
            return oddity
        if not segment.isascii():
            read_otherwise = segment.translate(_LOOK_ALIKES)
            slashes = read_otherwise.count("/") > segment.count("/")
            if _oddity_of_segment(read_otherwise, may_hold_slash=not slashes) is not None:
                return "a character that servers may read as a dot, a slash or a percent sign"
        before = segment
    return None


def _oddity_of_segment(segment: str, *, may_hold_slash: bool) -> str | None:
    if _ESCAPE.search(segment):
        return "an escape within an escape"
    if "\\" in segment or not segment.isprintable():
        return "a backslash or a control character"
    if "/" in segment and not may_hold_slash:
        return "an escaped slash"
    for name in segment.split("/"):
        base = name.partition(";")[0].partition("?")[0].partition("#")[0].strip()
        if base and not base.strip("."):
            return "a segment . or .."
    return None


def _unquoted(text: bytes) -> bytes:
    """`text` percent-decoded as often as a chain of readers behind us might do it."""
    for _ in range(_READERS):
        if b"%" not in text:
            break
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
    if exchange.method != "GET":
        return
    if any(b"websocket" in value.lower() for value in exchange.all_of(b"upgrade")):
        raise WebSocketRefusedError(
            "WebSockets are not served here, since questions inside one would meet no edit; use HTTP, such as"
            " POST /v1/responses with stream=true, or connect to the upstream itself"
        )


def caller_of(exchange: Exchange, principal: Principal, labels: AudienceLabels) -> Caller:
    """The sender, as far as the head of the request says: its labels, and its stable name.

    The name is that of the API key, or without one that of the client's address.

    Raises:
        InvalidRequestError: A label has two values, or is required and missing.
    """
    return Caller(name=_sender_of(exchange, principal), labels=labels.of(exchange.headers, principal))


def _sender_of(exchange: Exchange, principal: Principal) -> str:
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
    if _KEY_PREFIX in _unquoted(target):
        raise InvalidRequestError(
            f"the URL contains an API key, which logs would keep; send it in {OWN_HEADER.decode()}",
            field="path",
        )
    return target


def passed_headers(
    headers: Headers, oidc: OidcConfig = _NO_TOKENS, *, plain_reply: bool = False
) -> list[tuple[bytes, bytes]]:
    """The client's headers that are for the upstream: end to end, and no key, token or header of the gateway.

    With `plain_reply` they ask for a reply that is not encoded.
    """
    own = without_keys(end_to_end(headers), oidc)
    passed = [header for header in own if not header[0].startswith(b"x-serac-")]
    if not plain_reply:
        return passed
    return [
        *(header for header in passed if header[0] != b"accept-encoding"), (b"accept-encoding", b"identity")
    ]  # fmt: skip


def plain_json_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """`headers` for a body that the gateway has written: strict JSON in UTF-8, not encoded."""
    return [
        (name, b"application/json" if name == b"content-type" else value)
        for name, value in headers
        if name != b"content-encoding"
    ]
