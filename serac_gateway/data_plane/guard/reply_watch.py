"""Watches the texts of one reply, and holds back the pieces of the reply whose text may yet be a match."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterable

import msgspec

from serac_gateway.data_plane.guard.patterns import Match, Patterns
from serac_gateway.data_plane.guard.reply_text import ReplyText
from serac_gateway.data_plane.guard.text_watch import TextWatch

MAX_WAIT_CHARS = 64
"""Of other texts of the reply: a text that does not go on for so long holds nothing back any more. It is
watched all the same: what it has begun can be completed, but its end does not leave."""
STEP_CHARS = 2_048
"""Read in one go, some milliseconds."""
_MAX_TEXTS = 256
"""Texts of a reply whose pieces are joined; the pieces of further ones are looked at one by one."""
_MAX_KNOWN = 1_024
"""Short strings of the API itself that were looked at, and are not again."""
_MAX_KNOWN_CHARS = 128


class Part(msgspec.Struct, frozen=True):
    """A piece of a text."""

    place: str
    begin: int
    """Of the piece in the whole text, in characters."""
    text: str


class Piece(msgspec.Struct, frozen=True):
    """A piece of the reply as it came, such as an event."""

    data: bytes
    value: object
    """The decoded JSON in it; None: there is none."""
    parts: tuple[Part, ...] = ()


class Cut(msgspec.Struct, frozen=True):
    """Where a reply ends because of a value in it."""

    value: int
    """Its place among the values that are looked for."""
    before: tuple[Piece, ...]
    """The pieces that were held back and may leave."""
    place: str | None
    """Of the text that has the value; None: of no text that is joined."""
    prefix: str
    """The beginning of the piece with the value, up to the value."""


class ReplyWatch:
    """Pieces go in with `add` and come out of `released`, in order and unchanged."""

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns
        self._held: deque[Piece] = deque()
        self._watches: dict[str, TextWatch] = {}
        self._read_at: dict[str, int] = {}
        """Place -> the characters of all texts when its text was read last."""
        self._unsettled: set[str] = set()
        """The places of matches that only the next character, or the end, settles."""
        self._chars = 0
        self._since_step = 0
        self._known: set[str] = set()

    async def add(self, data: bytes, value: object, texts: Iterable[ReplyText]) -> Cut | None:
        """Take a piece with its texts; where it completes a match, the cut: nothing may follow."""
        parts: list[Part] = []
        for place, text in texts:
            if not text:
                continue
            if place is None or (place not in self._watches and len(self._watches) >= _MAX_TEXTS):
                if (match := await self._match_alone(text)) is not None:
                    return Cut(match.value, self._before(len(self._held)), None, "")
                continue
            watch = self._watches.get(place)
            if watch is None:
                watch = self._watches[place] = TextWatch(self._patterns)
            self._chars += len(text)
            self._read_at[place] = self._chars
            parts.append(Part(place, watch.length, text))
            if (match := await self._feed(watch, text)) is not None:
                self._held.append(Piece(data, value, tuple(parts)))
                return self._cut(place, match)
            if watch.close() is not None:
                self._unsettled.add(place)
        self._held.append(Piece(data, value, tuple(parts)))
        return self._cut_of_unsettled() if self._unsettled else None

    def released(self) -> list[Piece]:
        """The pieces that may leave now, in order."""
        ready: list[Piece] = []
        safe: dict[str, int] = {}
        while self._held:
            for part in self._held[0].parts:
                if part.place not in safe:
                    safe[part.place] = self._safe(part.place)
                if part.begin + len(part.text) > safe[part.place]:
                    return ready
            ready.append(self._held.popleft())
        return ready

    def close(self) -> Cut | None:
        """The reply has ended: a match that only this settles, or None, and all pieces may leave."""
        for place, watch in self._watches.items():
            if (match := watch.close()) is not None:
                return self._cut(place, match)
        self._watches.clear()
        return None

    def _cut_of_unsettled(self) -> Cut | None:
        """The cut at a match whose text does not go on, so that nothing else settles it before it leaves."""
        for place in list(self._unsettled):
            match = self._watches[place].close()
            if match is None:
                self._unsettled.discard(place)
            elif self._is_left(place):
                return self._cut(place, match)
        return None

    def _is_left(self, place: str) -> bool:
        """Whether the text at `place` has not gone on for so long that it holds nothing back any more."""
        return self._chars - self._read_at[place] > MAX_WAIT_CHARS

    def _safe(self, place: str) -> int:
        """Up to where the text at `place` may leave."""
        watch = self._watches.get(place)
        if watch is None or self._is_left(place):
            return 1 << 62
        return watch.held_from

    async def _feed(self, watch: TextWatch, text: str) -> Match | None:
        """As `watch.feed`, in steps: other requests are served in between."""
        for start in range(0, len(text), STEP_CHARS):
            step = text[start : start + STEP_CHARS]
            if (match := watch.feed(step)) is not None:
                return match
            self._since_step += len(step)
            if self._since_step >= STEP_CHARS:
                self._since_step = 0
                await asyncio.sleep(0)
        return None

    async def _match_alone(self, text: str) -> Match | None:
        if text in self._known:
            return None
        watch = TextWatch(self._patterns)
        match = await self._feed(watch, text) or watch.close()
        if match is None and len(text) <= _MAX_KNOWN_CHARS and len(self._known) < _MAX_KNOWN:
            self._known.add(text)
        return match

    def _cut(self, place: str, match: Match) -> Cut:
        """The cut at `match`: the piece in which it begins, and all after it, do not leave."""
        for number, piece in enumerate(self._held):
            for part in piece.parts:
                if part.place == place and part.begin + len(part.text) > match.start:
                    before = self._before(number)
                    prefix = part.text[: max(0, match.start - part.begin)] if len(before) == number else ""
                    return Cut(match.value, before, place, prefix)
        return Cut(match.value, (), place, "")

    def _before(self, number: int) -> tuple[Piece, ...]:
        """Of the first `number` pieces those up to the first with another match, settled or not."""
        starts = {
            place: match.start
            for place in self._unsettled
            if (match := self._watches[place].close()) is not None
        }
        before: list[Piece] = []
        for piece in itertools.islice(self._held, number):
            if any(part.begin + len(part.text) > starts.get(part.place, 1 << 62) for part in piece.parts):
                break
            before.append(piece)
        return tuple(before)
