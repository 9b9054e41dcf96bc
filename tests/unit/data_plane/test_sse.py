"""Where an event ends in a stream that is passed on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serac_gateway.data_plane.sse import MAX_HELD_BYTES, EventBoundaries

ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
lines = st.sampled_from([b"data: 1", b": ping", b"event: x", b"data: \xf0\x9f\x98\x80", b"data: [DONE]"])
streams = st.lists(
    st.tuples(st.lists(lines, min_size=1, max_size=3), st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=5
).map(lambda events: b"".join(end.join(texts) + end + end for texts, end in events))


@settings(deadline=None)  # a busy machine is no failure
@given(stream=streams, tail=st.sampled_from([b"", b"data: ha", b"data: x\n"]), data=st.data())
def test_however_a_stream_is_cut_whole_events_come_out_and_no_byte_is_lost(
    stream: bytes, tail: bytes, data: st.DataObject
) -> None:
    whole = stream + tail
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    boundaries = EventBoundaries()
    given_out = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        given_out.append(boundaries.feed(whole[start:end]))
        last_line = given_out[-1].splitlines()[-1:]
        assert given_out[-1].endswith(ENDS) or last_line in ([], [b""], [b": ping"])
    assert b"".join(given_out) + boundaries.held == whole
    assert b"".join(given_out) == stream


def test_an_event_comes_out_as_soon_as_its_last_byte_is_there() -> None:
    for event in (b"data: 1\n\n", b"data: 1\r\n\r\n", b"event: c\ndata: 1\n\n"):
        boundaries = EventBoundaries()
        outputs = [boundaries.feed(event[at : at + 1]) for at in range(len(event))]
        assert outputs == [b""] * (len(event) - 1) + [event]


def test_a_comment_between_events_does_not_wait_for_a_blank_line() -> None:
    boundaries = EventBoundaries()
    assert boundaries.feed(b": pi") == b""
    assert boundaries.feed(b"ng\n") == b": ping\n"
    assert boundaries.feed(b"data: 1\n: not between\n") == b""
    assert boundaries.feed(b"\n:\r\nda") == b"data: 1\n: not between\n\n:\r\n"


def test_a_chunk_of_whole_events_is_not_copied() -> None:
    chunk = b"data: 1\n\ndata: 2\n\n"
    assert EventBoundaries().feed(chunk) is chunk


def test_an_event_without_end_is_passed_on_before_it_fills_the_memory() -> None:
    boundaries = EventBoundaries()
    passed = sum(len(boundaries.feed(b"x" * 65_536)) for _ in range(100))
    assert len(boundaries.held) <= MAX_HELD_BYTES
    assert passed + len(boundaries.held) == 6_553_600


@pytest.mark.parametrize(
    ("stream", "ended"),
    [
        (b"data: 1\n\ndata: [DONE]\n\n", True),
        (b"data: [DONE]\n\ndata: 1\n\n", False),
        (b"data: [DONE]\n\nda", False),
        (b"data: [DONE]", False),
        (b"", False),
        (b'event: message_stop\ndata: {"type":"message_stop"}\n\n', True),
        (b"event:response.completed\r\ndata: {}\r\n\r\n", True),
        (b"event: response.incomplete\ndata: {}\n\n", True),
        (b"event: error\ndata: {}\n\n", True),
        (b'data: {"text":"event: message_stop"}\n\n', False),
        (b"event: content_block_stop\ndata: {}\n\n", False),
        (b"event: message_stop\ndata: {}\n\nevent: ping\ndata: {}\n\n", False),
    ],
)
def test_a_stream_has_ended_when_done_was_the_last_event(stream: bytes, ended: bool) -> None:
    for width in (1, 5, 100):
        boundaries = EventBoundaries()
        for at in range(0, len(stream), width):
            boundaries.feed(stream[at : at + width])
        assert boundaries.ended is ended


def test_the_next_number_follows_the_last_numbered_event() -> None:
    boundaries = EventBoundaries()
    assert boundaries.next_number == 0
    boundaries.feed(
        b'data: {"sequence_number": 4}\n\ndata: {"sequence_number":5,"delta":"\\"sequence_number\\":9"}\n\n'
    )
    assert boundaries.next_number == 6
