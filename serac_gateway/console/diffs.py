"""Differences between two texts, word by word, for people to read."""

from __future__ import annotations

import difflib
import re

import msgspec

MAX_WORDS = 1_500
"""Beyond it the texts are compared as a whole: a diff of ten thousand words takes seconds."""
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A run of words that is in both texts, or in one of them."""

    kind: str
    """``same``, ``removed`` or ``added``."""
    text: str


def words_diff(before: object, after: object) -> list[Piece]:
    """What was removed and what was added, in the order of the text; of anything but texts, its text."""
    old, new = as_text(before), as_text(after)
    if old == new:
        return [Piece(kind="same", text=old)] if old else []
    old_words, new_words = _WORDS.findall(old), _WORDS.findall(new)
    if len(old_words) + len(new_words) > MAX_WORDS:
        return [piece for piece in (_piece("removed", [old]), _piece("added", [new])) if piece.text]
    pieces = []
    matcher = difflib.SequenceMatcher(None, old_words, new_words, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            pieces.append(_piece("same", old_words[a:b]))
        else:
            pieces += [_piece("removed", old_words[a:b]), _piece("added", new_words[c:d])]
    return [piece for piece in pieces if piece.text]


def as_text(value: object) -> str:
    """A field's value as text: lists a line each, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "\n".join(as_text(item) for item in value)
    if isinstance(value, dict):
        return "\n".join(f"{name}: {as_text(item)}" for name, item in value.items())
    return str(value)


def _piece(kind: str, words: list[str]) -> Piece:
    return Piece(kind=kind, text="".join(words))
