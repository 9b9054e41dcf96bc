"""Several upstreams behind one URL: a request goes to the one that serves its model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from fnmatch import translate

import msgspec
from typing_extensions import override

from serac_gateway.data_plane.paths import normal_path
from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest, UpstreamResponse
from serac_gateway.data_plane.upstream.merged_models import Listing, merged_models
from serac_gateway.data_plane.upstream.named_model import ModelScanner, model_in_path, scanner_of
from serac_gateway.data_plane.upstream.whole_body import (
    MAX_BODY_BYTES,
    content_encoding,
    decoded_body,
    too_long,
    with_whole_body,
)
from serac_gateway.errors import UnreadableError

_LONG_BYTES = 16_384
"""A longer piece of a body is read on another thread."""
_WITHOUT_MODEL = ("/files", "/uploads")
"""Uploads of any size, whose forms name no model."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """An upstream and the models it serves."""

    models: Sequence[str]
    """`*` stands for any characters."""
    upstream: Upstream


class ByModelUpstream(Upstream):
    """Sends a request to the first upstream that serves its model, every other one to `default`.

    The model stands in the path or in the body, a form or JSON: a body that is still arriving is read until
    its model is known, and goes on byte for byte. The list of models is that of all upstreams, each with the
    models that are sent to it.
    """

    def __init__(self, default: Upstream, others: Sequence[Served]) -> None:
        """Take over all of them."""
        self._default = default
        self._others = [
            (re.compile("|".join(translate(pattern) for pattern in served.models)), served.upstream)
            for served in others
        ]

    @override
    @asynccontextmanager
    async def send(self, request: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        """See `Upstream.send`.

        Raises:
            TooLongToReadError: The body is longer than MAX_BODY_BYTES and has not named its model yet.
        """
        path = normal_path(request.target.partition(b"?")[0])
        if path == "/models" and request.method == "GET":
            yield await merged_models(request, self._listings())
            return
        model = model_in_path(request.target)
        if model is None and not path.startswith(_WITHOUT_MODEL):
            request, model = await _with_model(request)
        async with self._serving(model).send(request) as response:
            yield response

    @override
    async def close(self) -> None:
        for upstream in (self._default, *(upstream for _, upstream in self._others)):
            await upstream.close()

    def _serving(self, model: str | None) -> Upstream:
        if model is not None:
            for pattern, upstream in self._others:
                if pattern.match(model):
                    return upstream
        return self._default

    def _listings(self) -> list[Listing]:
        def is_sent_to(upstream: Upstream, model: str) -> bool:
            return self._serving(model) is upstream

        return [
            Listing(upstream=upstream, is_default=upstream is self._default, is_served=is_sent_to)
            for upstream in (self._default, *(upstream for _, upstream in self._others))
        ]


async def _with_model(request: UpstreamRequest) -> tuple[UpstreamRequest, str | None]:
    """The request, and the model that its body names; its body may be another one of the same bytes."""
    scanner = scanner_of(request.headers)
    if content_encoding(request):
        request, body = await with_whole_body(request)
        try:
            await _feed(scanner, await decoded_body(request, body))
        except UnreadableError:  # for the default upstream to judge
            return request, None
        return request, scanner.model
    if isinstance(request.body, bytes):
        await _feed(scanner, request.body)
        return request, scanner.model
    rest = aiter(request.body)
    held: list[bytes] = []
    size = 0
    async for chunk in rest:
        held.append(chunk)
        size += len(chunk)
        await _feed(scanner, chunk)
        if scanner.is_done:
            break
        if size > MAX_BODY_BYTES:
            raise too_long()
    return msgspec.structs.replace(request, body=_joined(held, rest)), scanner.model


async def _joined(held: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in held:
        yield chunk
    held.clear()
    async for chunk in rest:
        yield chunk


async def _feed(scanner: ModelScanner, data: bytes) -> None:
    if len(data) > _LONG_BYTES:
        await asyncio.to_thread(scanner.feed, data)
    else:
        scanner.feed(data)
