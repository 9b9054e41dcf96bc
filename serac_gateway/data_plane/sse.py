"""Where an event ends in a stream of server-sent events that is passed on."""

from __future__ import annotations

import re

MEDIA_TYPE = b"text/event-stream"
MAX_HELD_BYTES = 1_048_576
"""A part of an event beyond this is passed on before its end has come: memory is bounded."""

_BOUNDARY = re.compile(rb"\r\n\r\n|\n\r\n|\r\n\n|\n\n|\r\r")
_LONGEST_BOUNDARY = 4
_LAST_LINE = re.compile(
    rb"data: ?\[DONE\] *|event: ?(?:message_stop|error|response\.(?:completed|incomplete|failed|cancelled))"
)
"""How a chat or text completion, a message and a response tell that no more comes."""
_NUMBER = re.compile(rb'"sequence_number": ?(\d+)')
_BETWEEN_EVENTS = re.compile(rb"(?::[^\r\n]*)?\r?\n")
"""A comment, which may be there to keep connections alive, or a blank line more."""


class EventBoundaries:
    """Holds back the part of an event that is not complete, and nothing else; comments pass line by line.

    A client acts on an event only when its blank line has come, so nothing it sees is later for it. And when
    the upstream dies inside an event, an error event can follow as a whole one. Bytes are never changed: all
    that `feed` gives, then `held`, is all that was fed.
    """

    def __init__(self) -> None:
        self.held = b""
        """The beginning of an event."""
        self._passed = b""
        """What was given last: whole events."""

    def feed(self, chunk: bytes) -> bytes:
        """What can be passed on now: up to the last end of an event or of a comment between two."""
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
        """Whether the stream has said that it is complete; what breaks off after that breaks nothing."""
        if self.held:
            return False
        events = self._passed.rstrip()
        last = events[_end_of_last_event(events, 0) :]
        return any(_LAST_LINE.fullmatch(line) for line in last.splitlines())

    @property
    def next_number(self) -> int:
        """The number of the event after the last one, in an API that numbers them; else 0."""
        numbers = _NUMBER.findall(self._passed)
        return int(numbers[-1]) + 1 if numbers else 0


def _end_of_last_event(data: bytes, held: int) -> int:
    """Position after the last blank line of `data`, 0 if there is none; its first `held` bytes have none."""
    start = max(0, held - _LONGEST_BOUNDARY + 1)
    end = 0
    for found in _BOUNDARY.finditer(data, start):
        end = found.end()
    return end
