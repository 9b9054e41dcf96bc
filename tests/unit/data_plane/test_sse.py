"""Where an event ends in a stream that is passed on."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serac_gateway.data_plane.sse import MAX_HELD_BYTES, EventBoundaries

ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
BY_ITSELF = b'data: {"a": 1}'
DONE = b"data: [DONE]"
lines = st.sampled_from([b"data: 1", BY_ITSELF, b": ping", b"event: x", b"data: \xf0\x9f\x98\x80", DONE])
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
        assert given_out[-1].endswith(ENDS) or last_line in ([], [b""], [b": ping"], [BY_ITSELF], [DONE])
    assert b"".join(given_out) + boundaries.held == whole
    assert b"".join(given_out) == stream


def test_an_event_comes_out_as_soon_as_its_last_byte_is_there() -> None:
    for event in (b"data: 1\n\n", b"data: 1\r\n\r\n", b"event: c\ndata: 1\n\n"):
        boundaries = EventBoundaries()
        outputs = [boundaries.feed(event[at : at + 1]) for at in range(len(event))]
        if event.endswith(b"\r\n"):  # its blank line may have ended with the \r
            assert outputs == [b""] * (len(event) - 2) + [event[:-1], b"\n"]
        else:
            assert outputs == [b""] * (len(event) - 1) + [event]


EOLS = (b"\n", b"\r\n", b"\r")


@pytest.mark.parametrize("first", EOLS)
@pytest.mark.parametrize("second", EOLS)
def test_a_blank_line_may_end_otherwise_than_the_line_before_it(first: bytes, second: bytes) -> None:
    boundaries = EventBoundaries()
    if (first, second) == (b"\r", b"\n"):  # together they are the end of one line
        assert boundaries.feed(b"data: 1\r\n") == b""
        return
    event = b"data: 1" + first + second
    assert boundaries.feed(event) == event


@pytest.mark.parametrize("end", EOLS)
def test_lines_that_are_whole_by_themselves_wait_for_no_blank_line(end: bytes) -> None:
    """Servers that separate events by one line end only, whose clients act on each line."""
    boundaries = EventBoundaries()
    for line in (b'data: {"a":1}', b'data:{"a":"}{"}', b'{"done":true}', b"data: [DONE]"):
        assert boundaries.feed(line) == b""
        assert boundaries.feed(end) == line + end
    assert boundaries.ended


@pytest.mark.parametrize("line", [b"data: hello", b'data: {"a":', b'data: {"a":{}', b"data: }", b"event: x"])
def test_a_line_that_may_be_a_part_of_an_event_waits(line: bytes) -> None:
    boundaries = EventBoundaries()
    assert boundaries.feed(line + b"\n") == b""
    assert boundaries.held == line + b"\n"
    assert boundaries.feed(b"data: 2\n\n") == line + b"\ndata: 2\n\n"


def test_the_name_of_an_event_stays_with_its_data() -> None:
    boundaries = EventBoundaries()
    assert boundaries.feed(b"event: message_stop\n") == b""
    assert boundaries.feed(b"data: {}\n") == b"event: message_stop\ndata: {}\n"
    assert boundaries.ended
    boundaries.feed(b"event: x\ndata: {}\n")
    assert not boundaries.ended


@pytest.mark.parametrize(
    ("passed", "separator"),
    [
        (b"", b""),
        (b"data: {}\n\n", b""),
        (b"data: {}\r\n\r\n", b""),
        (b"data: {}\n\r\n", b""),
        (b"data: {}\n", b"\n"),
        (b"data: {}\r\n", b"\n"),
        (b"data: {}\r", b"\n"),
        (b"x" * (MAX_HELD_BYTES + 1), b"\n\n"),
    ],
)
def test_what_is_missing_of_a_blank_line_can_be_added(passed: bytes, separator: bytes) -> None:
    for step in (1, 3, len(passed) or 1):
        if len(passed) > 100 and step < 100:
            continue
        boundaries = EventBoundaries()
        for start in range(0, len(passed), step):
            boundaries.feed(passed[start : start + step])
        assert (boundaries.held, boundaries.separator) == (b"", separator)


def test_comments_and_blank_lines_after_the_last_event_do_not_hide_it() -> None:
    boundaries = EventBoundaries()
    for chunk in (b'data: {"sequence_number":4}\n\ndata: [DONE]\n', b"\n", b": ping\n", b"\n"):
        boundaries.feed(chunk)
    assert boundaries.ended
    assert boundaries.next_number == 5


@pytest.mark.parametrize("line", [b"x" * 50, b"", b"data: x", b"data: {"])
def test_an_event_of_many_lines_in_small_pieces_takes_linear_time(line: bytes) -> None:
    work: list[int] = []
    for count in (1_000, 4_000):
        boundaries = EventBoundaries()
        begun = time.process_time()
        for _ in range(count):
            boundaries.feed(b"data: y" + line)
            boundaries.feed(b"\r")
        work.append(int((time.process_time() - begun) * 1e6))
    assert work[1] < 4 * 4 * max(work[0], 5_000)


def test_a_long_line_after_many_others_is_gone_over_once() -> None:
    """A search for the end of a line begins at its beginning, and at no later place again."""
    boundaries = EventBoundaries()
    begun = time.process_time()
    boundaries.feed(b"data: y\n" + b"x" * 1_000_000)
    assert time.process_time() - begun < 1
    assert boundaries.feed(b"\n\n").endswith(b"x\n\n")


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
