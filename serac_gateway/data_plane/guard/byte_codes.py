"""Reads hexadecimal digits and base64 within a text, at every alignment, and watches what they decode to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from serac_gateway.data_plane.guard.automaton import ROOT
from serac_gateway.data_plane.guard.patterns import Match, Patterns
from serac_gateway.domain.folding import FOLDING

_NIBBLES: Final = {char: int(char, 16) for char in "0123456789abcdefABCDEF"}
_BETWEEN_HEX: Final = frozenset(" \t\r\n:-_,;.\\xX[]()'\"")
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_SIXTETS: Final = {char: value for value, char in enumerate(_ALPHABET)} | {
    "+": 62, "/": 63, "-": 62, "_": 63,
}  # fmt: skip
_BETWEEN_BASE64: Final = frozenset(" \t\r\n\\\"'")
_MAX_SEPARATORS: Final = 16
_READABLE_BYTES: Final = 8
"""A short value counts where so many bytes up to its end are readable, or at the beginning of a code."""
_MAX_BETWEEN: Final = 64
"""Characters in a row that are no part of a code: after more of them, another one begins."""
_CONTINUATIONS: Final = bytes(range(0x80, 0xC0))
_LATEST: Final = (1 << 72) - 1


class _Bytes:
    """A sequence of bytes, read as UTF-8, and the pending beginning of a match in it."""

    __slots__ = ("_automaton", "_gap", "_partial", "_patterns", "active", "places", "state")

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns
        self._automaton = patterns.automaton
        self._partial = b""
        """The beginning of a character."""
        self._gap = 0
        self.state = ROOT
        self.active = False
        """Whether anything is pending; if not, a byte that begins no pattern need not be taken."""
        self.places: list[int] = []
        """As those of a reading: where the code of each pending character begins, twice, plus a mark."""

    def take(self, latest: int, place: int) -> Match | None:
        """Read the last byte of `latest`, a number of which the higher bytes were read before."""
        byte = latest & 0xFF
        match = None
        if byte < 0x80 and not self._partial:
            match = self._take_char(chr(byte), latest, place)
        else:
            self._partial += bytes((byte,))
            try:
                char = self._partial.decode()
            except UnicodeDecodeError as exc:
                if exc.reason != "unexpected end of data":
                    self.reset()
            else:
                self._partial = b""
                match = self._take_char(char, latest, place)
        self.active = self.state != ROOT or bool(self._partial)
        return match

    def reset(self) -> None:
        """Begin anew."""
        self.state = ROOT
        self.active = False
        self.places.clear()
        self._partial = b""
        self._gap = 0

    def _take_char(self, char: str, latest: int, place: int) -> Match | None:
        folded = FOLDING[char]
        if not folded:
            self._gap += 1
            if self._gap > _MAX_SEPARATORS or (char < " " and not char.isspace()):
                self.reset()
            return None
        self._gap = 0
        automaton, places = self._automaton, self.places
        match = None
        for part in folded:
            self.state = automaton.step(self.state, part)
            places.append(place)
            del places[: len(places) - automaton.depth[self.state]]
            for number, length in automaton.matches[self.state]:
                pattern = self._patterns.of_number[number]
                start = places[-length]
                if pattern is None or (pattern.is_short and not (start & 1 or _is_readable(latest))):
                    continue
                match = match or Match(pattern.value, start >> 1)
        return match


def _is_readable(latest: int) -> bool:
    """Whether the last bytes are text, as they hardly ever are where none was encoded."""
    data = (latest & (1 << 8 * _READABLE_BYTES) - 1).to_bytes(_READABLE_BYTES)
    try:
        return data.lstrip(_CONTINUATIONS).decode().replace("\n", " ").isprintable()
    except UnicodeDecodeError:
        return False


class _AlignedReading:
    """Bytes written as digits, which may begin at any digit: each alignment is read by itself."""

    def __init__(self, patterns: Patterns, *, alignments: int) -> None:
        self._alignments = tuple(_Bytes(patterns) for _ in range(alignments))
        self._first = patterns.first_bytes
        self._count = 0
        """Digits in a row."""
        self._latest = 0
        """The last of these as a number."""
        self._between = 0
        self._last_place = 0

    @property
    def pending(self) -> Iterator[int]:
        """Where each pending match begins, as in a reading."""
        return (alignment.places[0] for alignment in self._alignments if alignment.places)


class HexReading(_AlignedReading):
    """Two hexadecimal digits are a byte; separators and prefixes such as ``0x`` do not count."""

    def __init__(self, patterns: Patterns) -> None:
        super().__init__(patterns, alignments=2)

    def read(self, char: str, place: int) -> Match | None:
        """Read a character of the text, at `place`."""
        nibble = _NIBBLES.get(char)
        if nibble is None:
            if self._count:
                self._pass(char)
            return None
        match = None
        begins = self._between > 0 or self._count == 0
        latest = self._latest = (self._latest << 4 | nibble) & _LATEST
        if self._count:
            alignment = self._alignments[self._count & 1]
            if alignment.active or self._first[latest & 0xFF]:
                match = alignment.take(latest, self._last_place)
        self._count += 1
        self._between = 0
        self._last_place = place << 1 | begins
        return match

    def _pass(self, char: str) -> None:
        self._between += 1
        if char not in _BETWEEN_HEX or self._between > _MAX_BETWEEN:
            self._count = self._latest = 0
            for alignment in self._alignments:
                alignment.reset()
        elif char in "xX" and self._between == 1 and self._latest & 0xF == 0:
            self._count -= 1  # of 0x
            self._latest >>= 4


class Base64Reading(_AlignedReading):
    """Four characters are three bytes, in the alphabet of RFC 4648 or of URLs; white space is skipped."""

    def __init__(self, patterns: Patterns) -> None:
        super().__init__(patterns, alignments=4)

    def read(self, char: str, place: int) -> Match | None:
        """Read a character of the text, at `place`."""
        sixtet = _SIXTETS.get(char)
        if sixtet is None:
            if self._count:
                self._between += 1
                if char not in _BETWEEN_BASE64 or self._between > _MAX_BETWEEN:
                    self._count = self._latest = 0
                    for alignment in self._alignments:
                        alignment.reset()
            return None
        match = None
        count = self._count
        begins = self._between > 0 or count == 0
        latest = self._latest = (self._latest << 6 | sixtet) & _LATEST
        if count:  # three of the alignments have a byte that ends in this character
            first, alignments = self._first, self._alignments
            alignment = alignments[(count - 1) & 3]
            if alignment.active or first[latest >> 4 & 0xFF]:
                match = alignment.take(latest >> 4, self._last_place)
            alignment = alignments[(count - 2) & 3]
            if alignment.active or first[latest >> 2 & 0xFF]:
                match = alignment.take(latest >> 2, self._last_place) or match
            alignment = alignments[(count - 3) & 3]
            if alignment.active or first[latest & 0xFF]:
                match = alignment.take(latest, self._last_place) or match
        self._count = count + 1
        self._between = 0
        self._last_place = place << 1 | begins
        return match
