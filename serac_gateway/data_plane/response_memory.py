"""Lets a client of /v1/responses go on from a response that was answered here, which no upstream knows.

The upstream would answer `previous_response_id` of ours with an error. So a request that names one gets the
turns of that response in its input instead, and the upstream's own response before those, if there was one.
What is remembered is in memory, of the latest responses, and not of those that were asked for with
`"store": false`; a request that names a response that is forgotten passes as it is.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec
from typing_extensions import override

from serac_gateway.data_plane.engine import Continuing

MAX_REMEMBERED_BYTES = 16_777_216
"""Of all requests remembered; the oldest are forgotten first."""
MAX_REQUEST_BYTES = 1_048_576
"""A longer request is neither remembered nor rewritten: this runs on the event loop."""
_NAME = b"previous_response_id"
_Members = dict[str, msgspec.Raw]


class _Remembered(msgspec.Struct, frozen=True, kw_only=True):
    previous: msgspec.Raw | None
    """The upstream's own response before the turns."""
    turns: list[msgspec.Raw]
    """What was asked, without the answer."""
    said: str
    size_bytes: int


class AnsweredResponses(Continuing):
    """The memory in this process, by namespace and id of the response."""

    def __init__(self, max_bytes: int = MAX_REMEMBERED_BYTES) -> None:
        """Remember requests of `max_bytes` together."""
        self._max_bytes = max_bytes
        self._remembered: OrderedDict[tuple[str, str], _Remembered] = OrderedDict()
        self._bytes = 0

    @override
    async def note(self, namespace: str, body: bytes, response_id: str, said: str) -> None:
        if len(body) > MAX_REQUEST_BYTES:
            return
        members = msgspec.json.decode(body, type=_Members)
        if "store" in members and msgspec.json.decode(members["store"]) is False:
            return
        key, size_bytes = (namespace, response_id), len(body) + len(said)
        if (before := self._remembered.pop(key, None)) is not None:  # noted twice, as calls may be repeated
            self._bytes -= before.size_bytes
        self._remembered[key] = _Remembered(
            previous=members.get(_NAME.decode()), turns=_turns(members), said=said, size_bytes=size_bytes
        )
        self._bytes += size_bytes
        while self._bytes > self._max_bytes:
            _, forgotten = self._remembered.popitem(last=False)
            self._bytes -= forgotten.size_bytes

    @override
    async def continued(self, namespace: str, body: bytes) -> bytes:
        if not self._remembered or not may_continue(body):
            return body
        try:
            members = msgspec.json.decode(body, type=_Members)
            named = msgspec.json.decode(members.get(_NAME.decode(), b"null"))
            turns = _turns(members)
        except (msgspec.MsgspecError, ValueError, RecursionError, KeyError):
            return body  # for the upstream to judge
        before = self._remembered.get((namespace, named)) if isinstance(named, str) else None
        if before is None:
            return body
        said = {"role": "assistant", "content": before.said}
        members["input"] = _raw([*before.turns, _raw(said), *turns])
        if before.previous is None:
            del members[_NAME.decode()]
        else:
            members[_NAME.decode()] = before.previous
        return msgspec.json.encode(members)


def may_continue(body: bytes) -> bool:
    """Whether `body` may name a response that it goes on from."""
    return len(body) <= MAX_REQUEST_BYTES and _NAME in body


def _turns(members: _Members) -> list[msgspec.Raw]:
    """The input as items.

    Raises:
        KeyError: There is none.
        msgspec.ValidationError: It is neither a text nor a list.
    """
    asked = msgspec.json.decode(members["input"], type=str | list[msgspec.Raw])
    return [_raw({"role": "user", "content": asked})] if isinstance(asked, str) else asked


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
