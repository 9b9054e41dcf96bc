"""The significant characters of a text: letters and digits, however they are written. Pure.

Case, width, ligatures, accents, invisible characters, spacing and separators make no difference:
``555-0199``, ``５５５ ０１９９`` and ``5550199`` fold to one text, as do ``Café`` and ``CAFE``.
"""

from __future__ import annotations

import unicodedata
from typing import Final

_LETTERS_AND_NUMBERS: Final = frozenset({"Ll", "Lu", "Lt", "Lm", "Lo", "Nd", "Nl", "No"})
_VOWEL_SIGNS: Final = frozenset({"Mn", "Mc"})
_KEPT_CLASSES: Final = frozenset({0, 8, 9})
"""Combining classes of marks that make another syllable: vowel signs, kana voicing, virama. Marks of the
others are accents and points, which people leave out."""
_INVISIBLE: Final = frozenset(
    map(
        chr,
        (
            0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x3164, 0xFFA0,
            *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0),
        ),
    )
)  # fmt: skip
"""Letters and marks that nobody sees (Unicode's Default_Ignorable_Code_Point)."""
_PLAIN: Final = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "ŧ": "t", "æ": "ae", "œ": "oe", "þ": "th"}
)
"""Letters with a stroke and ligatures, which Unicode does not decompose."""
_MAX_KNOWN: Final = 65_536


class Folding(dict[str, str]):
    """Character -> the significant characters it stands for; "" for a separator. Filled as it is used."""

    def __missing__(self, char: str) -> str:
        folded = _folded(char)
        if len(self) < _MAX_KNOWN:
            self[char] = folded
        return folded


FOLDING: Final = Folding()


def folded_text(text: str) -> str:
    """The significant characters of `text`, in order."""
    return "".join([FOLDING[char] for char in text])


def _folded(char: str) -> str:
    if char in _INVISIBLE:
        return ""
    plain = unicodedata.normalize("NFKC", char).casefold().translate(_PLAIN)
    decomposed = unicodedata.normalize("NFKD", plain)
    return "".join([_digit(part) for part in decomposed if _is_significant(part)])


def _is_significant(char: str) -> bool:
    category = unicodedata.category(char)
    if category in _VOWEL_SIGNS:
        return unicodedata.combining(char) in _KEPT_CLASSES and char not in _INVISIBLE
    return category in _LETTERS_AND_NUMBERS and char not in _INVISIBLE


def _digit(char: str) -> str:
    """The ASCII digit of a digit in any script; any other character itself."""
    digit = unicodedata.decimal(char, None)
    return char if digit is None else str(digit)
