"""Cuts a stream of text before the first stop text, and never lets part of one through."""

from __future__ import annotations

from collections.abc import Sequence


class StopTexts:
    """Fed with text as it is generated; gives back the text that can be released.

    Text that could be the beginning of a stop text is held until it is known not to be one.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        """Cut before the first of `stop`; empty texts are ignored."""
        self._stop = tuple(text for text in stop if text)
        self._held = ""
        self.matched: str | None = None
        """The stop text that has come."""

    @property
    def reached(self) -> bool:
        """Whether a stop text has come; no text after it is released."""
        return self.matched is not None

    def feed(self, text: str) -> str:
        """The part of the held text and `text` that can be released now."""
        if self.reached:
            return ""
        self._held += text
        ends = [(at, stop) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if ends:
            at, self.matched = min(ends)
            released, self._held = self._held[:at], ""
            return released
        keep = max((self._open_length(stop) for stop in self._stop), default=0)
        cut = len(self._held) - keep
        released, self._held = self._held[:cut], self._held[cut:]
        return released

    def finish(self) -> str:
        """The text that is still held, now that no more comes."""
        released, self._held = self._held, ""
        return released

    def _open_length(self, stop: str) -> int:
        """Length of the longest end of the held text that is a beginning of `stop`."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)
