"""Finds where events end in a stream of server-sent events that is passed on."""

from __future__ import annotations

import re

import msgspec

MEDIA_TYPE = b"text/event-stream"
MAX_HELD_BYTES = 1_048_576
"""An incomplete event longer than this is passed on before its end arrives, so memory is bounded."""

_LINE_END = rb"(?>\r\n|\n|\r)"
_BOUNDARY = re.compile(_LINE_END + _LINE_END)
"""The ends of two lines in a row, each of its own kind: servers mix them."""
_BLANK_AT_END = re.compile(_LINE_END + _LINE_END + rb"\Z")
_LONGEST_BOUNDARY = 4
_LAST_LINE = re.compile(
    rb"data: ?\[DONE\] *|event: ?(?:message_stop|error|response\.(?:completed|incomplete|failed|cancelled))"
)
"""The last line of a complete stream: of a chat or text completion, a message, a response."""
_NUMBER = re.compile(rb'"sequence_number": ?(\d+)')
_BETWEEN_EVENTS = re.compile(rb"(?::[^\r\n]*)?" + _LINE_END)
"""A comment, which may keep a connection open, or a further blank line."""
_LINE = re.compile(rb"([^\r\n]*+)" + _LINE_END)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class EventBoundaries:
    """Holds back the beginning of an incomplete event, and nothing else; comments pass line by line.

    A client acts on an event only once its blank line has arrived, so holding back delays nothing for it.
    Some servers send no blank lines, and their clients act on each line: a line that is a JSON object by
    itself, or the end of the stream, passes at once too. When the upstream fails in the middle of an event, a
    whole error event can follow. Bytes never change: the outputs of `feed` and then `held` are the inputs,
    joined.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._line_start = 0
        """In `_held`: where the line begins that has no end yet; nothing before it passes."""
        self._passed = b""
        """The last output that held more than comments and blank lines."""
        self._tail = b""
        """The last bytes of all output."""

    @property
    def held(self) -> bytes:
        """The beginning of an incomplete event."""
        return bytes(self._held)

    def feed(self, chunk: bytes) -> bytes:
        """The bytes to pass on now: whole events, comments between events, lines that pass by themselves."""
        if not self._held and chunk.endswith(b"\n\n"):
            return self._output(chunk)
        self._held += chunk
        end = self._end_of_what_passes() if b"\n" in chunk or b"\r" in chunk else 0
        if end == 0 and len(self._held) > MAX_HELD_BYTES:
            end = len(self._held)
        if end == 0:
            return b""
        ready = bytes(self._held[:end])
        del self._held[:end]
        self._line_start = max(0, self._line_start - end)
        return self._output(ready)

    @property
    def ended(self) -> bool:
        """Whether the last event completes the stream, so that the end of the connection is no failure."""
        return not self._held and any(_LAST_LINE.fullmatch(line) for line in _last_event(self._passed))

    @property
    def next_number(self) -> int:
        """The number of the next event, in an API that numbers them; else 0."""
        numbers = _NUMBER.findall(self._passed)
        return int(numbers[-1]) + 1 if numbers else 0

    @property
    def separator(self) -> bytes:
        """What is missing of a blank line between the output and another event."""
        if not self._tail or _BLANK_AT_END.search(self._tail):
            return b""
        return b"\n" if self._tail.endswith((b"\n", b"\r")) else b"\n\n"

    def _end_of_what_passes(self) -> int:
        """Position in `_held` after the last event, comment between events, or line that passes by itself."""
        data = self._held
        end = 0
        for boundary in _BOUNDARY.finditer(data, max(0, self._line_start - _LONGEST_BOUNDARY)):
            end = boundary.end()
        while between := _BETWEEN_EVENTS.match(data, end):
            end = between.end()
        self._line_start = max(end, self._line_start)
        while line := _LINE.match(data, self._line_start):
            self._line_start = line.end()
            if _passes_by_itself(line[1]):
                end = line.end()
        return end

    def _output(self, ready: bytes) -> bytes:
        if ready[:1] not in b":\r\n" or _last_event(ready):
            self._passed = ready
        self._tail = (self._tail + ready[-_LONGEST_BOUNDARY:])[-_LONGEST_BOUNDARY:]
        return ready


def _passes_by_itself(line: bytes) -> bool:
    """Whether a client that reads line by line can act on `line`: it is a whole JSON object, or [DONE]."""
    text = line.removeprefix(b"data:").strip(b" ")
    if not text.startswith(b"{"):
        return text == b"[DONE]"
    if not text.endswith(b"}"):
        return False
    try:
        _OBJECT.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True


def _last_event(data: bytes) -> list[bytes]:
    """The lines of the last event in `data`, the last first, without comments."""
    lines: list[bytes] = []
    for line in reversed(data.splitlines()):
        if line.startswith(b":"):
            continue
        if lines and (not line or _passes_by_itself(line)):
            break
        if line:
            lines.append(line)
    return lines
