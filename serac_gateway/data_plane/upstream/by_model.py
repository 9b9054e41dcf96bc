"""Several upstreams behind one URL: a request goes to the one that serves its model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
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
from serac_gateway.domain.body_budget import HeldBody
from serac_gateway.errors import InvalidRequestError, UnreadableError, UpstreamError

_LONG_BYTES = 16_384
"""A longer piece of a body is read on another thread."""
_HELD_BYTES = 1_048_576
"""A body up to this size is read to its end, or until nothing can follow, before it is sent."""
_WITHOUT_MODEL = ("/files", "/uploads")
"""Uploads of any size, whose forms name no model."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """An upstream and the models it serves."""

    models: Sequence[str]
    """`*` stands for any characters."""
    upstream: Upstream


class ByModelUpstream(Upstream):
    """Sends a request to the first upstream that serves its model, every other one to `default`.

    The model stands in the path or in the body, a form or JSON, and the last one counts. A long body that is
    still arriving is held until it names a model, and goes on byte for byte; if it names another upstream's
    later, the request is refused, since its beginning is sent already. The list of models is that of all
    upstreams, each with the models that are sent to it.
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
            InvalidRequestError: A long body names models of two upstreams.
        """
        path = normal_path(request.target.partition(b"?")[0])
        if path == "/models" and request.method == "GET":
            yield await merged_models(request, self._listings())
            return
        model = model_in_path(request.target)
        if model is not None or path.startswith(_WITHOUT_MODEL):
            async with self._serving(model).send(request) as response:
                yield response
            return
        scanner = scanner_of(request.headers)
        request, held, rest = await _until_model(request, scanner)
        upstream = self._serving(scanner.model)

        def is_for_another() -> bool:
            return self._serving(scanner.model) is not upstream

        if rest is not None:
            body = _checked(held, rest, request.held, scanner, is_for_another)
            request = msgspec.structs.replace(request, body=body)
        try:
            async with upstream.send(request) as response:
                yield response
        except UpstreamError as exc:
            if is_for_another():  # what broke the request off is its own body
                raise _two_upstreams() from exc
            raise

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


async def _until_model(
    request: UpstreamRequest, scanner: ModelScanner
) -> tuple[UpstreamRequest, list[bytes], AsyncIterator[bytes] | None]:
    """The request, whose body `scanner` has read: all of it, or of a long one until it named a model.

    Of a body that is still arriving, what was read and an iterator over the rest come too.
    """
    if content_encoding(request):
        request, body = await with_whole_body(request)
        with suppress(UnreadableError):  # for the default upstream to judge
            await _feed(scanner, await decoded_body(request, body))
        return request, [], None
    if isinstance(request.body, bytes):
        await _feed(scanner, request.body)
        return request, [], None
    rest = aiter(request.body)
    held: list[bytes] = []
    size = 0
    async for chunk in rest:
        held.append(chunk)
        size += len(chunk)
        if request.held is not None:
            request.held.add(len(chunk))
        await _feed(scanner, chunk)
        if scanner.is_done or (scanner.is_known and size > _HELD_BYTES):
            break
        if size > MAX_BODY_BYTES:
            raise too_long()
    return request, held, rest


async def _checked(
    held: list[bytes],
    rest: AsyncIterator[bytes],
    account: HeldBody | None,
    scanner: ModelScanner,
    is_for_another: Callable[[], bool],
) -> AsyncIterator[bytes]:
    for chunk in held:
        yield chunk
    if account is not None:
        account.remove(sum(map(len, held)))
    held.clear()
    async for chunk in rest:
        await _feed(scanner, chunk)
        if is_for_another():
            raise _two_upstreams()
        yield chunk


def _two_upstreams() -> InvalidRequestError:
    return InvalidRequestError(
        "the body names two models of different upstreams, and its beginning is sent already; name one model",
        field="model",
        details={"reason": "two models"},
    )


async def _feed(scanner: ModelScanner, data: bytes) -> None:
    if len(data) > _LONG_BYTES:
        await asyncio.to_thread(scanner.feed, data)
    else:
        scanner.feed(data)
