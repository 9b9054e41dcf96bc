"""The names of the numbers below 100 in many languages, to read digits that are spelt out."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Final

from unicode_rbnf import RbnfEngine
from unicode_rbnf.engine import FormatPurpose

from serac_gateway.domain.folding import folded_text

LANGUAGES: Final = (
    "en", "ar", "cs", "da", "de", "el", "es", "fi", "fr", "he", "hi", "hu", "id", "it", "ja", "ko", "nl",
    "no", "pl", "pt", "ro", "ru", "sv", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip
_NUMBERS: Final = 100
_ALSO: Final = (("oh", "0"), ("zwo", "2"))
"""As digits are read out in English and German; CLDR has the written names alone."""
START: Final = 0
_CODES: Final = 0x110000


class NumberWords:
    """A tree of folded names; a place in it is a number, `START` the one before the first character."""

    def __init__(self, names: Iterable[tuple[str, str]]) -> None:
        """`names` are folded names, each with the digits that it stands for."""
        self._next: dict[int, int] = {}
        self._digits: dict[int, tuple[str, ...]] = {}
        self._beginnings: list[int] = [0]
        """Of a place: the first digits of the names that go through it, a bit each."""
        places = START
        for name, digits in names:
            place = START
            bit = 1 << int(digits[0])
            for char in name:
                key = place * _CODES + ord(char)
                after = self._next.get(key)
                if after is None:
                    places += 1
                    after = self._next[key] = places
                    self._beginnings.append(0)
                place = after
                self._beginnings[place] |= bit
            if place != START and digits not in self._digits.get(place, ()):
                self._digits[place] = (*self._digits.get(place, ()), digits)

    def step(self, place: int, char: str) -> int | None:
        """The place after one more significant character; None: no name goes on so."""
        return self._next.get(place * _CODES + ord(char))

    def may_begin(self, place: int, digits: int) -> bool:
        """Whether a name that goes through `place` begins with a digit of which `digits` has the bit."""
        return self._beginnings[place] & digits != 0

    def digits_at(self, place: int) -> tuple[str, ...]:
        """The digits that the name which ends at `place` may stand for."""
        return self._digits.get(place, ())


@cache
def number_words() -> NumberWords:
    """The names in all `LANGUAGES`, by the rules of CLDR. The first call takes a second or two."""
    return NumberWords([*_names(), *_ALSO])


def _names() -> Iterable[tuple[str, str]]:
    for language in LANGUAGES:
        engine = RbnfEngine.for_language(language)
        for number in range(_NUMBERS):
            texts = engine.format_number(number, purpose=FormatPurpose.CARDINAL).text_by_ruleset.values()
            for name in {folded_text(text) for text in texts}:
                if not name.isdecimal():
                    yield name, str(number)
