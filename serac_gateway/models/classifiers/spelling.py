"""What may differ in spelling without a difference in sense: letter case, accents, punctuation.

These rules are about spelling only and list no word of any language.
"""

from __future__ import annotations

import re
import unicodedata

_WORD_OR_SIGN = re.compile(r"\w+|[^\w\s]")
_SILENT = frozenset(("Po", "Ps", "Pe", "Pi", "Pf", "Pd", "Sk"))
"""Unicode categories of punctuation. Signs such as + and $ belong to names, and so do # and & (in Po)."""
_SPEAKING = frozenset("#&%@*/")


def asks_the_same(prompt: str, text: str) -> bool:
    """Whether `text` equals `prompt` except for letter case, accents, punctuation and white space.

    Signs in names count: C++ is not C#.
    """
    return _plain_words(prompt) == _plain_words(text) != []


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
