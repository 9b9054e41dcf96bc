"""Lets a client of /v1/responses continue from a response that the gateway made, which no upstream has.

The upstream would answer `previous_response_id` of such a response with an error. So a request that names one
gets the turns of that response in its input instead, and the upstream's own response before those, if there
was one. The latest responses are kept in memory, without those of requests with `"store": false`; a request
that names a response that is no longer kept passes as it is.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec
from typing_extensions import override

from serac_gateway.data_plane.engine import Continuing
from serac_gateway.data_plane.protocols.body import UNDECODABLE, RequestBody
from serac_gateway.data_plane.protocols.responses import (
    PREVIOUS_RESPONSE,
    EarlierResponse,
    continued_request,
    earlier_response,
    previous_response_id,
)

MAX_REMEMBERED_BYTES = 16_777_216
"""Of all requests and answers kept; the oldest are dropped first."""
MAX_REQUEST_BYTES = 1_048_576
"""A longer request is neither kept nor rewritten: this runs on the event loop."""


class _Remembered(msgspec.Struct, frozen=True, kw_only=True):
    response: EarlierResponse
    size_bytes: int


class AnsweredResponses(Continuing):
    """The memory in this process, by namespace and id of the response."""

    def __init__(self, max_bytes: int = MAX_REMEMBERED_BYTES) -> None:
        """Keep requests and answers of `max_bytes` together."""
        self._max_bytes = max_bytes
        self._remembered: OrderedDict[tuple[str, str], _Remembered] = OrderedDict()
        self._bytes = 0

    @override
    async def note(self, namespace: str, body: RequestBody, response_id: str, said: str) -> None:
        if len(body.data) > MAX_REQUEST_BYTES:
            return
        response = earlier_response(body.members, said)
        if response is None:
            return
        key, size_bytes = (namespace, response_id), len(body.data) + len(said)
        if (before := self._remembered.pop(key, None)) is not None:  # noted twice, as calls may be repeated
            self._bytes -= before.size_bytes
        self._remembered[key] = _Remembered(response=response, size_bytes=size_bytes)
        self._bytes += size_bytes
        while self._bytes > self._max_bytes:
            _, dropped = self._remembered.popitem(last=False)
            self._bytes -= dropped.size_bytes

    @override
    async def continued(self, namespace: str, body: RequestBody) -> RequestBody:
        if not self._remembered or not may_continue(body):
            return body
        try:
            named = previous_response_id(body.members)
            before = self._remembered.get((namespace, named)) if isinstance(named, str) else None
            if before is None:
                return body
            return RequestBody.of_members(continued_request(body.members, before.response))
        except (*UNDECODABLE, KeyError):
            return body  # for the upstream to judge


def may_continue(body: RequestBody) -> bool:
    """Whether `body` may name a response that it continues from."""
    return len(body.data) <= MAX_REQUEST_BYTES and PREVIOUS_RESPONSE.encode() in body.data
