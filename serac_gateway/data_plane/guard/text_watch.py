"""Watches a text that arrives in pieces for the values that must not leave, in many ways to write them.

Several readings of the text run side by side, each with a state of one automaton: the text as it is; with
escapes and numbers that are spelt out replaced by what they stand for; as hex and as base64, at each
alignment. The time a character takes is bounded, and so is what has to be held back.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from operator import attrgetter

from serac_gateway.data_plane.guard.automaton import ROOT
from serac_gateway.data_plane.guard.byte_codes import Base64Reading, HexReading
from serac_gateway.data_plane.guard.escapes import OPENERS, Escape, read_escape
from serac_gateway.data_plane.guard.number_words import START
from serac_gateway.data_plane.guard.patterns import SIGNS, Match, Patterns
from serac_gateway.domain.folding import FOLDING

MAX_SEPARATORS = 16
"""In a row, between two characters of a value."""
_MAX_READINGS = 32
"""Of a kind: more than a text has that was not made to have many."""
_OTHER, _DIGIT, _LETTER, _UNSPACED = range(4)
"""Kinds of characters: separators, digits, letters with case, letters of scripts that may lack spaces."""


class _Kinds(dict[str, int]):
    def __missing__(self, char: str) -> int:
        if char.isdecimal():
            kind = _DIGIT
        elif not FOLDING[char]:
            kind = _OTHER
        else:
            kind = _LETTER if char.lower() != char.upper() else _UNSPACED
        if len(self) < 65_536:
            self[char] = kind
        return kind


_KINDS = _Kinds()


class _Reading:
    """A way to read the text, and the pending beginning of a match in it."""

    __slots__ = ("gap", "last_special", "places", "state", "word_end")

    def __init__(self, state: int, places: list[int], gap: int, last_special: int) -> None:
        self.state = state
        self.places = places
        """Of each pending character: its place in the text, twice, plus 1 at the beginning of a word."""
        self.gap = gap
        """Separators since the last significant character."""
        self.last_special = last_special
        """The place of the last character that another reading has otherwise; -1: this is the plain text."""
        self.word_end = -1
        """Where a number that was spelt out ended."""

    def copy(self, last_special: int) -> _Reading:
        return _Reading(self.state, self.places.copy(), self.gap, last_special)


class TextWatch:
    """Reads one text. Offsets are characters from its beginning."""

    def __init__(self, patterns: Patterns) -> None:
        self.length = 0
        """Of the text so far."""
        self._patterns = patterns
        self._automaton = patterns.automaton
        self._first = patterns.automaton.first
        self._numbers = patterns.numbers
        self._plain = _Reading(ROOT, [], 0, -1)
        self._others: list[_Reading] = []
        self._escapes: list[tuple[str, _Reading]] = []
        self._words: list[tuple[int, _Reading]] = []
        self._hex = HexReading(patterns)
        self._base64 = Base64Reading(patterns)
        self._kind = _OTHER
        self._sign = -1
        """The place of the latest sign of arithmetic."""
        self._awaiting: tuple[Match, int] | None = None
        """A match that counts unless the next character is of that kind."""

    def feed(self, text: str) -> Match | None:
        """Read more of the text; the first match, after which nothing more may be fed."""
        for char in text:
            if (match := self._read(char)) is not None:
                return match
        return None

    def close(self) -> Match | None:
        """The match that only the end of the text settles."""
        return None if self._awaiting is None else self._awaiting[0]

    def end_of(self, match: Match) -> int:
        """Behind the last character of `match`, which `feed` has just returned."""
        was_awaited = self._awaiting is not None and self._awaiting[0] is match
        return self.length - was_awaited

    @property
    def held_from(self) -> int:
        """The first character that may yet belong to a match; `length` if there is none."""
        starts = [reading.places[0] >> 1 for reading in self._readings() if reading.places]
        starts += [reading.last_special for _, reading in (*self._escapes, *self._words)]
        starts += [place >> 1 for place in (*self._hex.pending, *self._base64.pending)]
        if self._awaiting is not None:
            starts.append(self._awaiting[0].start)
        return min(starts, default=self.length)

    def _readings(self) -> Iterator[_Reading]:
        yield self._plain
        yield from self._others
        for _, reading in (*self._escapes, *self._words):
            yield reading

    def _read(self, char: str) -> Match | None:
        place = self.length
        self.length = place + 1
        kind = _KINDS[char]
        matches: list[Match | None] = []
        if self._awaiting is not None:
            awaited, unless = self._awaiting
            if kind != unless:
                return awaited
            self._awaiting = None
        begins = kind != self._kind or kind == _UNSPACED
        self._kind = kind
        if char in SIGNS:
            self._sign = place
        folded = FOLDING[char]
        made: list[_Reading] = []
        is_letter = kind >= _LETTER
        if self._words or (is_letter and self._numbers is not None and (begins or self._others)):
            self._read_words(folded, place, begins=begins, is_letter=is_letter, matches=matches, made=made)
        if self._escapes or char in OPENERS:
            self._read_escapes(char, place, matches, made)
        plain = self._plain
        if plain.state or folded[:1] in self._first:
            matches.append(self._take(plain, folded, place << 1 | begins))
        if self._others or made:
            self._read_others(folded, place << 1 | begins, matches, made)
        matches.append(self._hex.read(char, place))
        matches.append(self._base64.read(char, place))
        return min(filter(None, matches), key=attrgetter("start"), default=None) if any(matches) else None

    def _read_others(
        self, folded: str, entry: int, matches: list[Match | None], made: list[_Reading]
    ) -> None:
        """Go on with the readings that differ from the plain text; those `made` now begin after it."""
        matches += [self._take(reading, folded, entry) for reading in self._others]
        differing = [
            reading
            for reading in self._others
            if reading.places and reading.places[0] >> 1 <= reading.last_special
        ]
        self._others = (differing + made)[:_MAX_READINGS]

    def _take(self, reading: _Reading, folded: str, entry: int, *, spelt: bool = False) -> Match | None:
        """Read the significant characters of one character; `spelt`: of a number that was spelt out."""
        if not folded:
            reading.gap += 1
            if reading.gap > MAX_SEPARATORS:
                reading.state = ROOT
                reading.places.clear()
            return None
        reading.gap = 0
        automaton, places = self._automaton, reading.places
        match = None
        for part in folded:
            reading.state = automaton.step(reading.state, part)
            places.append(entry)
            del places[: len(places) - automaton.depth[reading.state]]
            if automaton.matches[reading.state]:
                match = self._match_in(reading, spelt=spelt) or match
        return match

    def _match_in(self, reading: _Reading, *, spelt: bool) -> Match | None:
        """A match that ends here and counts; one that the next character settles is kept in `_awaiting`."""
        for number, length in self._automaton.matches[reading.state]:
            pattern = self._patterns.of_number[number]
            if pattern is None:
                continue
            places = reading.places[-length:]
            match = Match(pattern.value, places[0] >> 1)
            if not pattern.is_short:
                return match
            if not places[0] & 1:
                continue
            if pattern.max_gaps is not None and reading.last_special < 0:
                gaps = sum(after - before > 3 for before, after in itertools.pairwise(places))
                if pattern.max_gaps < gaps < length - 1:
                    continue
            if pattern.is_number and reading.last_special < 0 and self._sign > match.start:
                continue
            if not (pattern.ends_in_digit or pattern.is_whole_word):
                return match
            if self._awaiting is None or match.start < self._awaiting[0].start:
                is_digit = pattern.ends_in_digit and not spelt
                self._awaiting = (match, _DIGIT if is_digit else _LETTER)
        return None

    def _read_words(
        self,
        folded: str,
        place: int,
        *,
        begins: bool,
        is_letter: bool,
        matches: list[Match | None],
        made: list[_Reading],
    ) -> None:
        """Go on with the names of numbers that have begun, and begin others at the beginning of a word."""
        numbers = self._numbers
        assert numbers is not None
        words = self._words
        if is_letter:
            words = words + [
                (START, reading.copy(place))
                for reading in (self._plain, *self._others)
                if begins or reading.word_end == place - 1
            ]
        going_on: list[tuple[int, _Reading]] = []
        for word, reading in words[:_MAX_READINGS]:
            step: int | None = word
            for part in folded:
                step = numbers.step(step, part) if step is not None else None
            if not folded:
                reading.gap += 1
                if reading.gap > MAX_SEPARATORS:
                    step = None
            if step is None or not (reading.state or numbers.may_begin(step, self._patterns.first_digits)):
                continue
            going_on.append((step, reading))
            if not folded:
                continue
            for digits in numbers.digits_at(step):
                spelt = reading.copy(reading.last_special)
                for digit in digits:
                    matches.append(self._take(spelt, digit, reading.last_special << 1 | 1, spelt=True))
                spelt.word_end = place
                if spelt.places:
                    made.append(spelt)
        self._words = going_on

    def _read_escapes(self, char: str, place: int, matches: list[Match | None], made: list[_Reading]) -> None:
        """Go on with the escapes that have begun, and begin others."""
        going_on: list[tuple[str, _Reading]] = []
        for begun, reading in self._escapes:
            text = begun + char
            meaning = read_escape(text)
            if meaning is Escape.OPEN:
                going_on.append((text, reading))
            elif isinstance(meaning, str):
                for part in meaning or " ":
                    entry = reading.last_special << 1 | 1
                    matches.append(self._take(reading, FOLDING[part], entry))
                if reading.places:
                    made.append(reading)
        if char in OPENERS:
            going_on += [
                (char, reading.copy(place))
                for reading in (self._plain, *self._others)
                if char != "<" or reading.state
            ]
        self._escapes = going_on[:_MAX_READINGS]
