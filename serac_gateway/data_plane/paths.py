"""The normal form of a request's path, and the endpoint that it names whatever way it is written.

Servers decode percent-escapes, merge slashes and ignore capitals each in their own way, and clients write
Azure's deployments and doubled prefixes. So the path is brought to one form before anything is decided. The
path that is sent to the upstream stays the client's own.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from serac_gateway.domain.endpoints import Endpoint

PREFIXES = ("/v1", "/openai")
"""The paths below these are the data plane's. /openai is where Azure's clients send their requests."""

_BELOW = tuple(f"{prefix}/" for prefix in PREFIXES)
_ENDPOINTS = {tuple(endpoint.strip("/").split("/")): endpoint for endpoint in Endpoint}
_BY_LENGTH = sorted(_ENDPOINTS.items(), key=lambda item: -len(item[0]))
_CHAT = ("chat", "completions")
"""A chat completion under whatever prefix: no other API has a path that ends so."""
_SKIPPED = frozenset({"v1", "openai", "api", "anthropic"})
"""Prefixes that clients write twice or in front: /v1/v1/…, /v1/openai/v1/…, /api/v1/…"""
_BEFORE_A_MODEL = frozenset({"deployments", "engines"})
"""Azure's and OpenAI's older paths name the model: /deployments/MODEL/chat/completions."""
_CACHED_PATHS = 1_024
_HEX = frozenset("0123456789abcdefABCDEF")


class RequestPath(msgspec.Struct, frozen=True, kw_only=True):
    """A path, and what it names."""

    endpoint: Endpoint | None
    """The endpoint that a POST to the path is for; None: none that requests are decided for."""
    api: Endpoint | None
    """The endpoint at or below which the path stands: its API's clients read the errors."""
    model: str | None = None
    """The model that the path names, as the client wrote it."""


def is_data_plane_path(path: str) -> bool:
    """Whether a request for `path`, percent-decoded, is the data plane's."""
    return path.startswith(_BELOW) or path in PREFIXES


@lru_cache(maxsize=_CACHED_PATHS)
def classified_path(raw_path: bytes) -> RequestPath:
    """The endpoint and the model that `raw_path`, without its query string, names."""
    segments = _segments(raw_path)
    lower = tuple(segment.lower() for segment in segments)
    start = next((place for place, word in enumerate(lower) if word not in _SKIPPED), len(lower))
    if lower[start : start + 1] and lower[start] in _BEFORE_A_MODEL:
        for words, named in _BY_LENGTH:
            model = segments[start + 1 : -len(words)]
            if model and lower[-len(words) :] == words:
                return RequestPath(endpoint=named, api=named, model="/".join(model))
    rest = lower[start:]
    endpoint = _ENDPOINTS.get(rest)
    if endpoint is None and rest[-2:] == _CHAT:
        endpoint = Endpoint.CHAT
    api = endpoint or next((below for words, below in _BY_LENGTH if rest[: len(words)] == words), None)
    return RequestPath(endpoint=endpoint, api=api)


def normal_path(raw_path: bytes) -> str:
    """`raw_path` with every percent-escape decoded and only single slashes, without dots and parameters.

    Bytes beyond ASCII are read as Latin-1. Idempotent: the normal form of a normal form is itself.
    """
    return "/" + "/".join(_segments(raw_path))


def _segments(raw_path: bytes) -> list[str]:
    text = _decoded(raw_path.decode("latin-1")).replace("\\", "/")
    for mark in "?#\0":  # servers that decode before they split end the path there
        text = text.partition(mark)[0]
    segments: list[str] = []
    for written in text.split("/"):
        segment = written.partition(";")[0].strip()  # path parameters, as servlets read them
        if segment == "..":
            del segments[-1:]
        elif segment.strip("."):
            segments.append(segment)
    return segments


def _decoded(text: str) -> str:
    """`text` decoded until no percent-escape is left, in one pass: an escape may yield a part of another."""
    if "%" not in text:
        return text
    decoded: list[str] = []
    for character in text:
        decoded.append(character)
        while len(decoded) > 2 and decoded[-3] == "%" and decoded[-2] in _HEX and decoded[-1] in _HEX:
            code = int("".join(decoded[-2:]), 16)
            decoded[-3:] = [chr(code)]
    return "".join(decoded)
