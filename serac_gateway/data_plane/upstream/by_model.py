"""Several upstreams behind one URL: a request goes to the one that serves its model."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from fnmatch import translate

import msgspec
from typing_extensions import override

from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest, UpstreamResponse

_JSON = b"application/json"


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """An upstream and the models it serves."""

    models: Sequence[str]
    """`*` stands for any characters."""
    upstream: Upstream


class ByModelUpstream(Upstream):
    """Sends a request to the first upstream that serves its model, every other one to `default`.

    The model stands in the body: a JSON body that is still arriving is read to its end first, and goes on
    byte for byte. What has no JSON body (lists, files, deletions) goes to `default`.
    """

    def __init__(self, default: Upstream, others: Sequence[Served]) -> None:
        """Take over all of them."""
        self._default = default
        self._others = [
            (re.compile("|".join(translate(pattern) for pattern in upstream.models)), upstream.upstream)
            for upstream in others
        ]

    @override
    @asynccontextmanager
    async def send(self, request: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        """See `Upstream.send`."""
        if not isinstance(request.body, bytes) and _is_json(request):
            body = b"".join([chunk async for chunk in request.body])
            request = msgspec.structs.replace(request, body=body)
        async with self._serving(request).send(request) as response:
            yield response

    @override
    async def close(self) -> None:
        for upstream in (self._default, *(upstream for _, upstream in self._others)):
            await upstream.close()

    def _serving(self, request: UpstreamRequest) -> Upstream:
        model = _model_in(request.body) if isinstance(request.body, bytes) else None
        if model is not None:
            for pattern, upstream in self._others:
                if pattern.match(model):
                    return upstream
        return self._default


class _WithModel(msgspec.Struct):
    model: str


_decoder = msgspec.json.Decoder(_WithModel)
"""It skips what it does not look for."""


def _model_in(body: bytes) -> str | None:
    try:
        return _decoder.decode(body).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _is_json(request: UpstreamRequest) -> bool:
    return any(name == b"content-type" and value.lower().startswith(_JSON) for name, value in request.headers)
