"""What is looked for in replies: the folded values, forwards and backwards, and when each counts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

import msgspec

from serac_gateway.data_plane.guard.automaton import PatternAutomaton
from serac_gateway.data_plane.guard.number_words import NumberWords, number_words
from serac_gateway.domain.folding import FOLDING, folded_text

MAX_PATTERN_CHARS = 256
"""Significant characters of a value that are looked for: its beginning, and its end for the reversed text."""
_WRITTEN_OUT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})
_LEAST_RESPELT_CHARS = 5
"""A shorter spelling is another word: "Joel" would be in "jolly"."""
_STARTS = re.compile(r"(?<!\w)\S")
_WORD = re.compile(r"\w")
_TWO_LETTERS = re.compile("(?:ae|oe|ue|aa)")
_LEADS = frozenset((0xC3, 0xC4, 0xC5, 0xEF))
"""The first bytes in UTF-8 of letters with accents and of full width, which fold to ASCII."""
SIGNS = frozenset("=+*×÷<>$€£%#^:")
"""Of arithmetic, prices and times: between digits that belong to several numbers."""
LEAST_REVERSED_CHARS = 6
"""A shorter value is not looked for backwards: "Emil" would be in "lime"."""
SHORT_CHARS = 8
"""A shorter value also stands in other words and numbers by chance: see `Pattern`."""


class Match(msgspec.Struct, frozen=True):
    """A value that stands in a text."""

    value: int
    """Its place among the values that are looked for."""
    start: int
    """Of its first character in the text; of an encoded value, of the first encoded character."""


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """A text that is looked for."""

    value: int
    """The place of the value that it belongs to."""
    is_short: bool
    """It counts at the beginning of a word or number only, and decoded only among other readable text."""
    ends_in_digit: bool
    """If short, it does not count within a longer number."""
    max_gaps: int | None
    """If set, the most separators within it, unless all its characters are separated."""
    is_number: bool
    """Of digits alone and short: it does not count across one of `SIGNS`."""
    is_whole_word: bool = False
    """If short, it does not count within a longer word."""


class Patterns(msgspec.Struct, frozen=True, kw_only=True):
    """All patterns of some values, ready to be looked for."""

    automaton: PatternAutomaton
    of_number: tuple[Pattern | None, ...]
    """By the numbers that the automaton reports; None: not looked for."""
    numbers: NumberWords | None
    """None: no value has a digit, and digits that are spelt out are not read."""
    first_digits: int
    """A bit for each digit with which a pattern begins."""
    first_bytes: tuple[bool, ...]
    """By byte: whether a UTF-8 text that begins with it may begin a pattern."""

    def without(self, values: Set[int]) -> Patterns:
        """The same but for the patterns of `values`."""
        kept = tuple(
            None if pattern is None or pattern.value in values else pattern for pattern in self.of_number
        )
        return msgspec.structs.replace(self, of_number=kept)


def patterns_of(values: Sequence[str]) -> Patterns:
    """The patterns of `values`, each of which has a significant character. Takes time: see `number_words`."""
    texts: list[str] = []
    patterns: list[Pattern] = []
    for place, value in enumerate(values):
        folded = folded_text(value)
        is_short = len(folded) < SHORT_CHARS
        is_number = is_short and folded.isdecimal()
        max_gaps = None
        if is_short and (is_number or folded.isalpha()):
            max_gaps = max(_gaps(value), len(folded) // 3 if is_number else 0)
        pattern = Pattern(
            value=place,
            is_short=is_short,
            ends_in_digit=folded[-1].isdecimal(),
            max_gaps=max_gaps,
            is_number=is_number and SIGNS.isdisjoint(value.strip()[1:-1]),
        )
        for text in (folded, *_respelt(value, folded)):
            texts.append(text[:MAX_PATTERN_CHARS])
            patterns.append(pattern)
        backwards = folded[::-1]
        if len(folded) >= LEAST_REVERSED_CHARS and backwards != folded:
            texts.append(backwards[:MAX_PATTERN_CHARS])
            patterns.append(
                msgspec.structs.replace(
                    pattern, ends_in_digit=backwards[-1].isdecimal(), is_whole_word=is_short
                )
            )
    automaton = PatternAutomaton((text, number) for number, text in enumerate(texts))
    leads = _LEADS.union(char.encode()[0] for value in values for char in value)
    has_digits = any(char.isdecimal() for text in texts for char in text)
    return Patterns(
        automaton=automaton,
        of_number=tuple(patterns),
        numbers=number_words() if has_digits else None,
        first_digits=sum(1 << int(char) for char in automaton.first if char.isdecimal()),
        first_bytes=tuple(
            byte in leads if byte >= 0x80 else FOLDING[chr(byte)][:1] in automaton.first
            for byte in range(256)
        ),
    )


class ExactValues(msgspec.Struct, frozen=True, kw_only=True):
    """Values that are looked for as they are written, in any case, where no letter or digit adjoins them."""

    places: Mapping[str, tuple[int, ...]]
    """Folded in case -> the places among the values that are looked for; of one text there may be several."""
    lengths: tuple[int, ...]
    """Of the values in characters, the longest first."""

    def without(self, values: Set[int]) -> ExactValues:
        """The same but for those at these places."""
        remaining = {
            text: tuple(place for place in places if place not in values)
            for text, places in self.places.items()
        }
        kept = {text: places for text, places in remaining.items() if places}
        return msgspec.structs.replace(self, places=kept)

    def spans(self, text: str) -> Iterator[tuple[int, int, int]]:
        """Begin, end and value of each that stands in `text`, in order; none overlaps another."""
        end = 0
        for start in _STARTS.finditer(text) if self.places else ():
            begin = start.start()
            for length in self.lengths if begin >= end else ():
                places = self.places.get(text[begin : begin + length].casefold())
                if places is not None and not _WORD.match(text, begin + length):
                    end = begin + length
                    yield begin, end, places[0]
                    break


def exact_values(values: Iterable[tuple[str, int]]) -> ExactValues:
    """Make them of texts and their places."""
    places: dict[str, tuple[int, ...]] = {}
    lengths: set[int] = set()
    for value, place in values:
        text = value.strip()
        places[text.casefold()] = (*places.get(text.casefold(), ()), place)
        lengths.add(len(text))
    return ExactValues(places=places, lengths=tuple(sorted(lengths, reverse=True)))


def _respelt(value: str, folded: str) -> set[str]:
    """The same with umlauts written out, as "Mueller" for "Müller", and the other way round."""
    written_out = folded_text(unicodedata.normalize("NFC", value).casefold().translate(_WRITTEN_OUT))
    contracted = _TWO_LETTERS.sub(lambda pair: pair[0][0], folded)
    return {text for text in (written_out, contracted) if len(text) >= _LEAST_RESPELT_CHARS} - {folded}


def _gaps(value: str) -> int:
    """How many times separators stand between significant characters of `value`."""
    words = "".join(char if FOLDING[char] else " " for char in value).split()
    return len(words) - 1
