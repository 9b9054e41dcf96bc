"""What is fuzzed, and what must hold whatever comes in: streams that are cut, paths, bodies, whole requests.

`python -m tests.fuzz.run` feeds these from atheris, guided by coverage; the corpus that it found is replayed
by test_corpus.py on every run of the tests.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from types import FrameType
from typing import Any

import msgspec

from serac_gateway.data_plane.lenient_json import as_strict_json
from serac_gateway.data_plane.paths import classified_path, normal_path
from serac_gateway.data_plane.protocols.all_text import all_text
from serac_gateway.data_plane.protocols.base import CompletionRequest
from serac_gateway.data_plane.protocols.body import BodyForm, RequestBody
from serac_gateway.data_plane.protocols.endpoints import PROTOCOLS
from serac_gateway.data_plane.sse import MAX_HELD_BYTES, EventBoundaries
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.parts import cuts, parts_of
from serac_gateway.domain.queries import MAX_QUERY_CHARS, Bypass, Query
from serac_gateway.errors import UnreadableError
from serac_gateway.routing.retrieval import retrieval_texts, segments
from tests.fuzz.whole_requests import WholeRequests

_ENDPOINTS = tuple(Endpoint)
_CODINGS = ("", "gzip", "deflate", "br, zstd")


MAX_STEPS = 20_000
MAX_STEPS_PER_BYTE = 40
"""Lines of our own code that run for an input; a quadratic reader exceeds them at some hundred bytes."""


def check(data: bytes) -> None:
    """The first byte picks the target, the rest is its input."""
    if not data:
        return
    if data[0] % 8 == 7:
        check_path(data[1:])
    elif data[0] % 8 == 5:
        whole_requests().check(data[1:])
    elif data[0] % 2:
        check_stream(data[1:])
    elif data[0] % 32 == 30:
        check_steps(data[1:])
    else:
        check_body(data[1:])


@lru_cache(maxsize=1)
def whole_requests() -> WholeRequests:
    """The gateway that whole requests are sent through, made with the first."""
    return WholeRequests()


def check_steps(data: bytes) -> None:
    """A body is read in steps linear in its length."""
    steps = counted_steps(lambda: check_body(data))
    assert steps <= MAX_STEPS + MAX_STEPS_PER_BYTE * len(data), steps


def counted_steps(act: Callable[[], object]) -> int:
    """How many lines of the gateway's code run: the same on every machine, however busy."""
    steps = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ANN401 - as sys.settrace has it
        nonlocal steps
        steps += event == "line"
        return count

    def begin(frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ANN401 - as sys.settrace has it
        return count if "serac_gateway" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(begin)
    try:
        act()
    finally:
        sys.settrace(before)
    return steps


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


def check_path(data: bytes) -> None:
    """The normal form of a path is its own, and names the same endpoint."""
    path = normal_path(data)
    assert normal_path(path.encode("latin-1")) == path
    assert classified_path(data).endpoint == classified_path(path.encode("latin-1")).endpoint


def check_body(data: bytes) -> None:
    """A body is read as Python's and a second parser read it, and gives a query and an answer's form."""
    if not data:
        return
    endpoint = _ENDPOINTS[data[0] % len(_ENDPOINTS)]
    coding = _CODINGS[data[0] // 64]
    body = RequestBody(data[1:], form=BodyForm(content_encoding=coding, max_decoded_bytes=1_000_000))
    try:
        reading = body.read()
    except UnreadableError:
        assert coding or not _is_read_by_both_parsers(body.data)
        return
    assert body.data == data[1:]
    if not coding:
        check_reading(body, reading.value)
    if isinstance(reading.value, dict):
        check_request(endpoint, reading.value, reading.overridden)


def check_reading(body: RequestBody, value: object) -> None:
    """The parsers that take the body at all take it for the same value."""
    strict = as_strict_json(value)
    assert as_strict_json(msgspec.json.decode(strict)) == strict == as_strict_json(json.loads(strict))
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        assert as_strict_json(msgspec.json.decode(body.data)) == strict
    with suppress(ValueError, RecursionError):
        assert as_strict_json(json.loads(body.data)) == strict
    assert (
        as_strict_json(body.read(frozenset(value) if isinstance(value, dict) else frozenset()).value)
        == strict
    )


def check_request(endpoint: Endpoint, body: dict[str, object], overridden: tuple[object, ...]) -> None:
    """Any object gives a query of bounded length or a reason why not, texts, and the form of an answer."""
    for spoken in all_text(body, overridden):
        assert spoken.text.encode() or not spoken.text
    form = PROTOCOLS[endpoint].answer_form(body)
    assert form.unsupported_reason != "malformed request"
    assert form.request.choices >= 1
    assert isinstance(PROTOCOLS[endpoint].parse_request(body), (CompletionRequest, Bypass))
    query = PROTOCOLS[endpoint].query(body)
    if isinstance(query, Bypass):
        assert query.reason
        return
    assert isinstance(query, Query)
    assert 0 < len(query.text) <= MAX_QUERY_CHARS
    for text in (
        query.text,
        *query.context,
        *query.questions,
        *retrieval_texts(query),
        *segments(query.text),
    ):
        assert text.encode()
    assert all(part.text.encode() for part in parts_of(query.text))
    assert all(0 < place < len(query.text) for place in cuts(query.text))


def _is_read_by_both_parsers(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
        json.loads(data)
    except (ValueError, msgspec.DecodeError, RecursionError):
        return False
    return True
