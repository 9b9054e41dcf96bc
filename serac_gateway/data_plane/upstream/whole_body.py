"""The whole body of a request on its way to an upstream, and its text without content encodings."""

from __future__ import annotations

import asyncio

import msgspec

from serac_gateway.data_plane.encodings import codings_of, decoded
from serac_gateway.data_plane.upstream.base import UpstreamRequest
from serac_gateway.errors import TooLongToReadError

MAX_BODY_BYTES = 64_000_000
"""The longest body that is held in memory on its way, encoded or not."""


def content_encoding(request: UpstreamRequest) -> str:
    """All its Content-Encoding headers, joined with commas; "" if it names no coding."""
    value = b",".join(value for name, value in request.headers if name == b"content-encoding")
    text = value.decode("latin-1")
    return text if codings_of(text) else ""


async def with_whole_body(request: UpstreamRequest) -> tuple[UpstreamRequest, bytes]:
    """`request` with its body in memory, and that body.

    Raises:
        TooLongToReadError: It is longer than MAX_BODY_BYTES.
        BodyMemoryError: The bodies of all requests take up too much memory.
    """
    if isinstance(request.body, bytes):
        return request, request.body
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.body:
        chunks.append(chunk)
        size += len(chunk)
        if request.held is not None:
            request.held.add(len(chunk))
        if size > MAX_BODY_BYTES:
            raise too_long()
    body = b"".join(chunks)
    return msgspec.structs.replace(request, body=body), body


async def decoded_body(request: UpstreamRequest, body: bytes) -> bytes:
    """`body` without the codings that `request` names.

    Raises:
        UnreadableError: It is not in these codings, or they are unknown, or it becomes too long.
    """
    encoding = content_encoding(request)
    if not encoding:
        return body
    return await asyncio.to_thread(decoded, body, encoding, MAX_BODY_BYTES)


def too_long() -> TooLongToReadError:
    """The error for a body that would have to be held in memory and is too long for that."""
    return TooLongToReadError(
        f"the body is longer than {MAX_BODY_BYTES:,} bytes, and has to be read here before it is sent to an"
        " upstream: for its model, or for what it refers to; send less, or name the model first",
        field="body",
        details={"limit": MAX_BODY_BYTES, "reason": "body too long"},
    )
