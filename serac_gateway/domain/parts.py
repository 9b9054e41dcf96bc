"""The parts of a message that may ask several things, by the signs of writing alone. Pure.

Marks that end a sentence, line breaks and numbers separate parts in every script. What joins two questions in
one sentence are words, which differ by language: `cuts` gives the places where they may be, and models have
to say which of them is one (routing/several_questions.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

import msgspec

MAX_PARTS = 8
"""The rest of a message is one more part."""
_MIN_CUT_WEIGHT = 8
"""Of the text on each side of a cut: letters, those of scripts without spaces counted twice."""
_UNSPACED_FROM = 0x2E80
_ITEM = re.compile(r"\(?(?:\d{1,2}[.)]\s+|\d{1,2}[.):：、．](?=[^\s\d])|[^\W\d_]\)\s+)(?=\S)")
_INLINE_ITEM = re.compile(r"(?<!\S)\(?(\d{1,2})[.)]\s+(?=\S)")
_GREEK_CHARS = 40
"""How far before a semicolon Greek letters are looked for: the last word may be a foreign name."""
_QUESTION, _ENDS = "QUESTION MARK", ("QUESTION MARK", "EXCLAMATION MARK", "FULL STOP", "DANDA")
"""Of the Unicode names of the signs that end a sentence."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a message."""

    text: str
    """On one line, without its number."""
    is_marked: bool
    """Whether it ends with a question mark or is numbered: it asks something, whatever its words are."""


def parts_of(text: str) -> tuple[Part, ...]:
    """The sentences and lines of `text`, in order; one if nothing separates any, none of a blank text."""
    parts: list[Part] = []
    for line in text.splitlines():
        for piece, is_item in _items(line):
            sentences = list(_sentences(piece))
            if is_item:
                parts.append(Part(text=" ".join(sentences), is_marked=True))
            else:
                parts += [Part(text=each, is_marked=ends_with_question_mark(each)) for each in sentences]
    numbered = sum(part.is_marked for part in parts)
    if numbered == 1 and len(parts) == 1:
        parts = [Part(text=parts[0].text, is_marked=ends_with_question_mark(text))]
    kept, rest = parts[:MAX_PARTS], parts[MAX_PARTS:]
    if rest:
        joined = " ".join(part.text for part in rest)
        kept.append(Part(text=joined, is_marked=any(part.is_marked for part in rest)))
    return tuple(kept)


def cuts(text: str) -> list[int]:
    """The places in `text`, a part, between words or after a sign, with enough text on both sides."""
    places = [
        place
        for place in range(1, len(text))
        if text[place].isspace()
        or (unicodedata.category(text[place - 1]).startswith("P") and ord(text[place - 1]) >= _UNSPACED_FROM)
    ]
    return [
        place
        for place in places
        if weight(text[:place]) >= _MIN_CUT_WEIGHT and weight(text[place:]) >= _MIN_CUT_WEIGHT
    ]


def ends_with_question_mark(text: str) -> bool:
    """Whether the last signs of `text` hold a question mark of any script."""
    place = len(text)
    while place and not text[place - 1].isalnum():
        place -= 1
        if _is_question_mark(text, place):
            return True
    return False


def is_quoted(text: str) -> bool:
    """Whether `text` begins with a quotation mark, a bracket, or the sign of a quoted line."""
    first = text.lstrip()[:1]
    return bool(first) and (first in "\"'`>" or unicodedata.category(first) in ("Pi", "Ps"))


def _items(line: str) -> Iterator[tuple[str, bool]]:
    """The numbered items of a line, without their numbers, and what stands before them."""
    begun = line.strip()
    places = list(_INLINE_ITEM.finditer(begun))
    if len(places) > 1 and [int(match[1]) for match in places] == list(range(1, len(places) + 1)):
        yield begun[: places[0].start()], False
        ends = [match.start() for match in places[1:]] + [len(begun)]
        for match, end in zip(places, ends, strict=True):
            yield begun[match.end() : end].strip(), True
    elif (number := _ITEM.match(begun)) is not None:
        yield begun[number.end() :], True
    elif begun and unicodedata.category(begun[0]) == "No":
        yield begun[1:].strip(), True
    else:
        yield begun, False


def _sentences(line: str) -> Iterator[str]:
    begin = place = 0
    while place < len(line):
        if not _ends_sentence(line, place):
            place += 1
            continue
        mark = line[place]
        while place < len(line) and (_ends_sentence(line, place) or _closes(line[place])):
            place += 1
        after = line[place : place + 2].strip()[:1]
        is_end = place == len(line) or line[place].isspace() or ord(mark) >= _UNSPACED_FROM
        if is_end and not (mark == "." and after.islower()):
            yield from _kept(line[begin:place])
            begin = place
    yield from _kept(line[begin:])


def _kept(text: str) -> Iterator[str]:
    spaced = " ".join(text.split())
    if any(map(str.isalnum, spaced)):
        yield spaced


def _ends_sentence(text: str, place: int) -> bool:
    return _is_question_mark(text, place) or any(end in _name(text[place]) for end in _ENDS)


def _is_question_mark(text: str, place: int) -> bool:
    """Whether a question ends there; behind Greek words a semicolon is a question mark."""
    if text[place] == ";":
        before = text[max(0, place - _GREEK_CHARS) : place]
        return any(_name(letter).startswith("GREEK") for letter in before)
    return _QUESTION in _name(text[place])


@lru_cache(maxsize=4_096)
def _name(sign: str) -> str:
    """The Unicode name of a sign; "" of letters, digits, and marks that begin a sentence."""
    name = "" if sign.isspace() else unicodedata.name(sign, "")
    if sign.isalnum():
        return name if name.startswith("GREEK") else ""
    return "" if "INVERTED" in name else name


def _closes(sign: str) -> bool:
    return sign in "\"'" or unicodedata.category(sign) in ("Pe", "Pf")


def weight(text: str) -> int:
    """The letters of `text`, those of scripts without spaces counted twice: its length in Latin ones."""
    return sum(1 + (ord(letter) >= _UNSPACED_FROM) for letter in text if letter.isalnum())
