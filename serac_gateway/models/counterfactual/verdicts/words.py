"""The words of a text, and whether a word stands in another text in some inflection."""

from __future__ import annotations

import re
from collections.abc import Collection

from serac_gateway.models.counterfactual.verdicts.cldr import WITHOUT_SPACES
from serac_gateway.models.counterfactual.verdicts.vocabulary import LETTER, Vocabulary

_LETTERS = re.compile(r"(?:(?![\d_])" + LETTER + r")+|\d+")
_HAN = re.compile(r"[\u3400-\u9fff]")
_HIRAGANA = re.compile(r"[\u3040-\u309f]+")
_HANGUL = re.compile(r"[\uac00-\ud7a3]")
_CLITICS = ("وال", "بال", "كال", "فال", "لل", "ال", "و", "ب", "ل", "ف")
_STEM_CHARS = 4
_STEM_SHARE = 0.7


def words(text: str, vocabulary: Vocabulary) -> list[str]:
    """The words of normalized `text`.

    Text without spaces is cut into its characters, of Japanese all but hiragana.
    """
    if vocabulary.language not in WITHOUT_SPACES:
        return _LETTERS.findall(text)
    if vocabulary.language == "zh":
        for form in sorted(vocabulary.neutral, key=len, reverse=True):
            if len(form) > 1:
                text = text.replace(form, " ")
    pieces = _LETTERS.findall(_HIRAGANA.sub(" ", text) if vocabulary.language == "ja" else text)
    return [part for piece in pieces for part in (piece if _HAN.search(piece) else [piece])]


def covered(word: str, others: Collection[str]) -> bool:
    """Whether `word` or another form of it is among `others`."""
    return word in others or any(_is_form(word, other) for other in others)


def _is_form(word: str, other: str) -> bool:
    if _HANGUL.match(word) and _HANGUL.match(other):
        return _shared(word, other) >= 2
    if "\u0600" <= word[0] <= "\u06ff":
        word, other = _bare(word), _bare(other)
    shared, shorter, longer = _shared(word, other), min(len(word), len(other)), max(len(word), len(other))
    if shared == shorter >= 3 and longer - shorter <= 3:
        return True
    return shared >= max(_STEM_CHARS, _STEM_SHARE * longer)


def _bare(word: str) -> str:
    for clitic in _CLITICS:
        if word.startswith(clitic) and len(word) - len(clitic) >= 3:
            return word.removeprefix(clitic)
    return word


def _shared(left: str, right: str) -> int:
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count
