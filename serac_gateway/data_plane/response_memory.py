"""Lets a client of /v1/responses continue from a response that the gateway made, which no upstream has.

The upstream would answer `previous_response_id` of such a response with an error. So a request that names one
gets the turns of that response in its input instead, and the upstream's own response before those, if there
was one. The latest responses are kept in memory, without those of requests with `"store": false`; a request
that names a response that is no longer kept passes as it is.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from serac_gateway.data_plane.lenient_json import UNDECODABLE
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.data_plane.protocols.responses import (
    PREVIOUS_RESPONSE,
    EarlierResponse,
    continued_request,
    earlier_response,
    previous_response_id,
)
from serac_gateway.domain.audiences import NO_LABELS, Labels

MAX_KEPT_BYTES = 16_777_216
"""Of all requests and answers kept; the oldest are dropped first."""
MAX_REQUEST_BYTES = 1_048_576
"""A longer request is neither kept nor rewritten: this runs on the event loop."""


_Key = tuple[str, frozenset[tuple[str, str]], str]


def _key(namespace: str, labels: Labels, response_id: str) -> _Key:
    """What an edit for one audience answered is continued by nobody outside it."""
    return namespace, frozenset(labels.items()), response_id


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    response: EarlierResponse
    size_bytes: int


class ResponseMemory:
    """The latest responses by namespace, labels and id. Belongs to one event loop."""

    def __init__(self, max_bytes: int = MAX_KEPT_BYTES) -> None:
        """Keep requests and answers of `max_bytes` together."""
        self._max_bytes = max_bytes
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._bytes = 0

    def remember(
        self,
        namespace: str,
        request: RequestBody,
        response_id: str,
        answer: str,
        labels: Labels = NO_LABELS,
    ) -> None:
        """See `Engine.remember_response`. Requests that are no strict JSON or name no input are not kept."""
        if len(request.data) > MAX_REQUEST_BYTES:
            return
        try:
            response = earlier_response(request.members, answer)
        except (*UNDECODABLE, KeyError):
            return
        if response is None:
            return
        key, size_bytes = _key(namespace, labels, response_id), len(request.data) + len(answer)
        if (before := self._kept.pop(key, None)) is not None:  # a worker's call may be repeated
            self._bytes -= before.size_bytes
        self._kept[key] = _Kept(response=response, size_bytes=size_bytes)
        self._bytes += size_bytes
        while self._bytes > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.size_bytes

    def with_earlier_turns(
        self, namespace: str, request: RequestBody, labels: Labels = NO_LABELS
    ) -> RequestBody:
        """See `Engine.with_earlier_turns`."""
        if not self._kept or not may_continue(request):
            return request
        try:
            previous_id = previous_response_id(request.members)
            if not isinstance(previous_id, str):
                return request
            kept = self._kept.get(_key(namespace, labels, previous_id))
            if kept is None:
                return request
            members = continued_request(request.members, kept.response)
            return RequestBody.of_members(members, form=request.form)
        except (*UNDECODABLE, KeyError):
            return request  # for the upstream to judge


def may_continue(request: RequestBody) -> bool:
    """Whether `request` may name a response that it continues from: a cheap test before any decoding."""
    return len(request.data) <= MAX_REQUEST_BYTES and PREVIOUS_RESPONSE.encode() in request.data
