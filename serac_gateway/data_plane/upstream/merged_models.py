"""GET /models over several upstreams: one list, each with the models that are sent to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest, UpstreamResponse
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import GatewayError, UpstreamError

log = logging.getLogger(__name__)

_MAX_LIST_BYTES = 16_000_000
_CREDENTIALS = frozenset({b"authorization", b"api-key", b"x-api-key"})
_OK = 200

_FALSE = msgspec.Raw(b"false")

Members = dict[str, msgspec.Raw]


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """An upstream whose models are listed."""

    upstream: Upstream
    is_default: bool
    """The client's own credentials are sent to this one alone."""
    is_served: Callable[[Upstream, str], bool]
    """Whether requests for a model are sent to an upstream."""


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    headers: Headers
    body: bytes
    members: Members | None
    """Of a list of models; None: the reply is none."""


class _Model(msgspec.Struct):
    id: str


async def merged_models(request: UpstreamRequest, listings: Sequence[Listing]) -> UpstreamResponse:
    """The reply to a request for the list of models, of which the first listing is the default upstream's.

    An upstream that fails or has no list is left out, and logged. If all fail, the default's reply stands.

    Raises:
        GatewayError: All failed, and the default upstream without a reply.
    """
    outcomes = await asyncio.gather(
        *(_reply(request, listing) for listing in listings), return_exceptions=True
    )
    lists: list[tuple[Listing, Members]] = []
    for listing, outcome in zip(listings, outcomes, strict=True):
        if isinstance(outcome, _Reply) and outcome.members is not None:
            lists.append((listing, outcome.members))
        elif isinstance(outcome, BaseException) and not isinstance(outcome, GatewayError):
            raise outcome
        else:
            reason = outcome if isinstance(outcome, GatewayError) else f"status {outcome.status}"
            log.warning("the models of one upstream are missing in the list: %s", reason)
    if not lists:
        first = outcomes[0]
        if isinstance(first, BaseException):
            raise first
        return _response(first.status, first.headers, first.body)
    body = msgspec.json.encode(_merged(lists))
    return _response(_OK, [(b"content-type", b"application/json")], body)


async def _reply(request: UpstreamRequest, listing: Listing) -> _Reply:
    dropped = {b"accept-encoding"} if listing.is_default else {b"accept-encoding", *_CREDENTIALS}
    headers = [header for header in request.headers if header[0] not in dropped]
    plain = msgspec.structs.replace(request, headers=[*headers, (b"accept-encoding", b"identity")], body=b"")
    async with listing.upstream.send(plain) as response:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.body:
            chunks.append(chunk)
            size += len(chunk)
            if size > _MAX_LIST_BYTES:
                raise UpstreamError(
                    f"an upstream's list of models is longer than {_MAX_LIST_BYTES:,} bytes",
                    details={"kind": "not HTTP"},
                )
    body = b"".join(chunks)
    members = _members(body) if response.status == _OK else None
    return _Reply(status=response.status, headers=response.headers, body=body, members=members)


def _members(body: bytes) -> Members | None:
    try:
        members = msgspec.json.decode(body, type=Members)
        msgspec.json.decode(members["data"], type=list[_Model])
    except (msgspec.MsgspecError, ValueError, RecursionError, KeyError):
        return None
    return members


def _merged(lists: Sequence[tuple[Listing, Members]]) -> Members:
    """The first list with the models of all, each once; Anthropic's members for pages fit the whole."""
    models: dict[str, msgspec.Raw] = {}
    for listing, members in lists:
        for model in msgspec.json.decode(members["data"], type=list[msgspec.Raw]):
            name = msgspec.json.decode(model, type=_Model).id
            if listing.is_served(listing.upstream, name):
                models.setdefault(name, model)
    merged = dict(lists[0][1])
    merged["data"] = msgspec.Raw(msgspec.json.encode(list(models.values())))
    names = list(models)
    if "has_more" in merged:
        more = any(msgspec.json.decode(members.get("has_more", _FALSE)) is True for _, members in lists)
        merged["has_more"] = msgspec.Raw(msgspec.json.encode(more))
    for member, ends in (("first_id", names[:1]), ("last_id", names[-1:])):
        if member in merged:
            merged[member] = msgspec.Raw(msgspec.json.encode(ends[0] if ends else None))
    return merged


def _response(status: int, headers: Headers, body: bytes) -> UpstreamResponse:
    kept = [header for header in headers if header[0] != b"content-length"]
    return UpstreamResponse(
        status=status, headers=[*kept, (b"content-length", str(len(body)).encode())], body=_once(body)
    )


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
