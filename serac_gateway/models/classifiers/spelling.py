"""What may differ in spelling without a difference in sense: letter case, accents, punctuation; and numbers.

Cross-encoders read texts for their sense and are weak at digits. These rules are about spelling only and list
no word of any language.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

MAX_CHARS = 320
"""Of an edit's prompt this much is compared."""
_WORD_OR_SIGN = re.compile(r"\w+|[^\w\s]")
_SEPARATOR = re.compile("[,:]")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_SILENT = frozenset(("Po", "Ps", "Pe", "Pi", "Pf", "Pd", "Sk"))
"""Unicode categories of punctuation. Signs such as + and $ belong to names, and so do # and & (in Po)."""
_SPEAKING = frozenset("#&%@*/")


def asks_the_same(prompt: str, text: str) -> bool:
    """Whether `text` equals `prompt` except for letter case, accents, punctuation and white space.

    Signs in names count: C++ is not C#.
    """
    return _plain_words(prompt) == _plain_words(text) != []


def numbers_differ(prompt: str, text: str, context: Sequence[str]) -> bool:
    """Whether `prompt` has a number that `text` and `context` lack, and `text` a number that `prompt` lacks.

    "Kestrel 2.4" and "Kestrel 2.5", but not "the 2025 final" and "the '25 final", nor "E-417" and "E 417".
    Digits of all scripts count as the same digits.
    """
    of_edit = _numbers(prompt[:MAX_CHARS])
    of_query = _numbers(text)
    known = of_query | {number for turn in context for number in _numbers(turn)}
    return bool(_left_over(of_edit, known)) and bool(_left_over(of_query, of_edit))


def says_something(text: str) -> bool:
    """Whether any character of `text` `speaks`; marks alone say nothing to a model."""
    return any(map(speaks, text))


def speaks(char: str) -> bool:
    """Whether it is a letter, a digit or a sign such as an emoji, be it newer than this Python's Unicode."""
    category = unicodedata.category(char)
    return category[0] in "LNS" or category in ("Cn", "Co")


def _plain_words(text: str) -> list[str]:
    return [_plain(piece) for piece in _WORD_OR_SIGN.findall(text) if not _is_silent(piece)]


def _is_silent(piece: str) -> bool:
    return len(piece) == 1 and piece not in _SPEAKING and unicodedata.category(piece) in _SILENT


def _plain(word: str) -> str:
    """Without letter case, accents of Latin letters and forms of width, which people leave out."""
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    kept = (
        letter
        for place, letter in enumerate(decomposed)
        if not (unicodedata.combining(letter) and place and decomposed[place - 1].isascii())
    )
    return "".join(kept)


def _numbers(text: str) -> set[str]:
    """The numbers of `text` in ASCII digits, with a point for each separator, without leading zeros."""
    ascii_text = "".join(_ascii_digit(letter) for letter in text)
    return {_SEPARATOR.sub(".", number).lstrip("0") or "0" for number in _NUMBER.findall(ascii_text)}


def _ascii_digit(letter: str) -> str:
    return str(unicodedata.digit(letter)) if letter.isdigit() and not letter.isascii() else letter


def _left_over(numbers: set[str], others: set[str]) -> set[str]:
    """The `numbers` that are not among `others`; years also match by their last two digits."""
    short = {_short_year(other) for other in others}
    return {n for n in numbers if n not in others and n not in short and _short_year(n) not in others}


def _short_year(number: str) -> str | None:
    """The last two digits of a number of four, as in '25; None: it is none."""
    return number[2:].lstrip("0") if len(number) == len("2025") and number.isdigit() else None
