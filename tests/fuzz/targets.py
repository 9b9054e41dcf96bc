"""What is fuzzed, and what must hold whatever comes in: streams that are cut, and bodies that are read.

`python -m tests.fuzz.run` feeds these from atheris, guided by coverage; the corpus that it found is replayed
by test_corpus.py on every run of the tests.
"""

from __future__ import annotations

import msgspec

from serac_gateway.data_plane.protocols.base import CompletionRequest
from serac_gateway.data_plane.protocols.endpoints import PROTOCOLS
from serac_gateway.data_plane.sse import MAX_HELD_BYTES, EventBoundaries
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import MAX_QUERY_CHARS, Bypass, Query, asks_several_things
from serac_gateway.routing.retrieval import retrieval_texts, segments

_ENDPOINTS = tuple(Endpoint)


def check(data: bytes) -> None:
    """The first byte picks the target, the rest is its input."""
    if not data:
        return
    if data[0] % 2:
        check_stream(data[1:])
    else:
        check_body(data[1:])


def check_stream(data: bytes) -> None:
    """Bytes pass in order and none is lost; what is held back is the beginning of one event."""
    step = 1 + (data[0] if data else 0) % 23
    boundaries = EventBoundaries()
    given = bytearray()
    for start in range(0, len(data), step):
        given += boundaries.feed(data[start : start + step])
        assert data.startswith(bytes(given) + boundaries.held)
        assert len(boundaries.held) <= MAX_HELD_BYTES
        assert b"\n\n" not in boundaries.held
    assert bytes(given) + boundaries.held == data
    assert boundaries.ended in (True, False)
    assert boundaries.next_number >= 0


def check_body(data: bytes) -> None:
    """Any body gives a query of bounded length or a reason why not, and a request or a reason why not."""
    if not data:
        return
    endpoint = _ENDPOINTS[data[0] % len(_ENDPOINTS)]
    try:
        body = msgspec.json.decode(data[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    query = PROTOCOLS[endpoint].query(body)
    request = PROTOCOLS[endpoint].parse_request(body)
    assert isinstance(request, (CompletionRequest, Bypass))
    if isinstance(query, Bypass):
        assert query.reason
        return
    assert isinstance(query, Query)
    assert 0 < len(query.text) <= MAX_QUERY_CHARS
    for text in (query.text, *query.context, *retrieval_texts(query), *segments(query.text)):
        assert text.encode()
    assert asks_several_things(query.text) in (True, False)
