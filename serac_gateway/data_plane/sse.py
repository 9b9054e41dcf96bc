"""Finds where events end in a stream of server-sent events that is passed on."""

from __future__ import annotations

import re

MEDIA_TYPE = b"text/event-stream"
MAX_HELD_BYTES = 1_048_576
"""An incomplete event longer than this is passed on before its end arrives, so memory is bounded."""

_BOUNDARY = re.compile(rb"\r\n\r\n|\n\r\n|\r\n\n|\n\n|\r\r")
_LONGEST_BOUNDARY = 4
_LAST_LINE = re.compile(
    rb"data: ?\[DONE\] *|event: ?(?:message_stop|error|response\.(?:completed|incomplete|failed|cancelled))"
)
"""The last line of a complete stream: of a chat or text completion, a message, a response."""
_NUMBER = re.compile(rb'"sequence_number": ?(\d+)')
_BETWEEN_EVENTS = re.compile(rb"(?::[^\r\n]*)?\r?\n")
"""A comment, which may keep a connection open, or a further blank line."""


class EventBoundaries:
    """Holds back the beginning of an incomplete event, and nothing else; comments pass line by line.

    A client acts on an event only once its blank line has arrived, so holding back delays nothing for it.
    When the upstream fails in the middle of an event, a whole error event can follow. Bytes never change: the
    outputs of `feed` and then `held` are the inputs, joined.
    """

    def __init__(self) -> None:
        self.held = b""
        """The beginning of an incomplete event."""
        self._passed = b""
        """The last output: whole events."""

    def feed(self, chunk: bytes) -> bytes:
        """The bytes to pass on now: up to the last end of an event, or of a comment between two events."""
        if not self.held and chunk.endswith(b"\n\n"):
            self._passed = chunk
            return chunk
        data = self.held + chunk
        end = _end_of_last_event(data, len(self.held))
        while between := _BETWEEN_EVENTS.match(data, end):
            end = between.end()
        if end == 0 and len(data) > MAX_HELD_BYTES:
            end = len(data)
        ready, self.held = data[:end], data[end:]
        if ready:
            self._passed = ready
        return ready

    @property
    def ended(self) -> bool:
        """Whether the last event completes the stream, so that the end of the connection is no failure."""
        if self.held:
            return False
        events = self._passed.rstrip()
        last = events[_end_of_last_event(events, 0) :]
        return any(_LAST_LINE.fullmatch(line) for line in last.splitlines())

    @property
    def next_number(self) -> int:
        """The number of the next event, in an API that numbers them; else 0."""
        numbers = _NUMBER.findall(self._passed)
        return int(numbers[-1]) + 1 if numbers else 0


def _end_of_last_event(data: bytes, held: int) -> int:
    """Position after the last blank line of `data`, 0 without one; the first `held` bytes have none."""
    start = max(0, held - _LONGEST_BOUNDARY + 1)
    end = 0
    for boundary in _BOUNDARY.finditer(data, start):
        end = boundary.end()
    return end
