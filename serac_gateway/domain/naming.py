"""Where a name stands in a text, and the text with another name in its place.

Names are compared as people write them: letter case, forms of width, runs of white space, composed or
decomposed accents and invisible marks make no difference; accents and punctuation do. A name stands in a text
as whole words. Scripts that set no spaces between words, or hang particles on them, have no such borders:
there it may stand anywhere.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

_MARKS = frozenset(("Mn", "Mc", "Me", "Cf"))
"""Unicode categories of what belongs to the character before it."""
_SIGNS_OF_NAMES = "+#"
"""At the end of a word: C stands neither in C++ nor in C#."""
_JOINER = "\u200d"
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_WITHOUT_BORDERS = frozenset((
    "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "BOPOMOFO", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR",
    "TIBETAN", "YI",
))  # fmt: skip
"""Words with which the Unicode names of such scripts' letters begin, perhaps after HALFWIDTH."""


def comparable(name: str) -> str:
    """Equal for names that differ in spelling only; empty if there is nothing to be seen."""
    return _Text(name).folded.strip()


def spans(name: str, text: str) -> list[tuple[int, int]]:
    """Where `name` stands in `text`, composed by NFC: beginnings and ends, in order, none overlapping."""
    return _Text(text).spans(comparable(name))


def stands_in(name: str, text: str) -> bool:
    """Whether `name` stands in `text`."""
    return bool(spans(name, text))


def comparables(names: Iterable[str]) -> dict[str, str]:
    """Each of `names` by its comparable, in order; of those that differ in spelling only the first."""
    name_by_key: dict[str, str] = {}
    for name in names:
        name_by_key.setdefault(comparable(name), name.strip())
    return name_by_key


class Renaming:
    """A text in which the longest name that stands in it can be replaced, wherever it does, by the others."""

    def __init__(self, text: str, name_by_key: Mapping[str, str], *, max_chars: int) -> None:
        """`name_by_key`: see `comparables`. No text of more than `max_chars` characters is made."""
        self._searched = _Text(text)
        standing = max((key for key in name_by_key if self._searched.spans(key)), key=len, default="")
        self._places = self._searched.spans(standing)
        kept_chars = len(self._searched.text) - sum(end - begin for begin, end in self._places)
        self.standing: str | None = name_by_key.get(standing)
        """The longest name that stands in the text; None: none does."""
        self.names: tuple[str, ...] = ()
        """The others, in order, but those that make the text too long; none if no name stands in it."""
        if self.standing is not None:
            self.names = tuple(
                name
                for key, name in name_by_key.items()
                if key != standing and kept_chars + len(self._places) * len(name) <= max_chars
            )

    def by(self, name: str) -> str:
        """The text with `name`, of `names`."""
        return self._searched.replaced(self._places, name)


class _Text:
    """A text, folded for comparison, cluster by cluster of characters that are seen as a single one."""

    def __init__(self, text: str) -> None:
        self.text = unicodedata.normalize("NFC", text)
        self._begins: list[int] = []
        self._cluster_at: dict[int, int] = {}
        """By the place in `folded` where a cluster begins, or all end: its number."""
        pieces: list[str] = []
        length = 0
        for begin, end in _clusters(self.text):
            piece = _fold(self.text[begin:end])
            if piece:
                self._cluster_at[length] = len(self._begins)
                self._begins.append(begin)
                pieces.append(piece)
                length += len(piece)
        self._cluster_at[length] = len(self._begins)
        self.folded = "".join(pieces)

    def spans(self, key: str) -> list[tuple[int, int]]:
        """See `spans`; `key` is a comparable name."""
        places: list[tuple[int, int]] = []
        at = self.folded.find(key) if key else -1
        while at >= 0:
            first, last = self._cluster_at.get(at), self._cluster_at.get(at + len(key))
            is_whole = self._is_border(first) and self._is_border(last)
            if first is not None and last is not None and is_whole:
                places.append((self._begin(first), self._begin(last)))
            at = self.folded.find(key, at + (len(key) if is_whole else 1))
        return places

    def replaced(self, places: Sequence[tuple[int, int]], name: str) -> str:
        """The text with `name` at each of `places`."""
        pieces, end = list[str](), 0
        for begin, next_end in places:
            pieces += [self.text[end:begin], name]
            end = next_end
        return "".join((*pieces, self.text[end:]))

    def _begin(self, cluster: int) -> int:
        return self._begins[cluster] if cluster < len(self._begins) else len(self.text)

    def _is_border(self, cluster: int | None) -> bool:
        """Whether a word may end before that cluster; None: it is within a cluster."""
        if cluster is None:
            return False
        if cluster in (0, len(self._begins)):
            return True
        left, right = (self.text[self._begins[place]] for place in (cluster - 1, cluster))
        is_inside = left.isalnum() and (right.isalnum() or right in _SIGNS_OF_NAMES)
        return not is_inside or _has_no_borders(left) or _has_no_borders(right)


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Beginnings and ends of characters with their marks, joined emoji, and runs of white space."""
    begin = 0
    for place in range(1, len(text) + 1):
        if place == len(text) or not _belongs_to_last(text[place - 1], text[place]):
            yield begin, place
            begin = place


def _belongs_to_last(last: str, char: str) -> bool:
    if char.isspace() or last.isspace():
        return char.isspace() and last.isspace()
    return (
        last == _JOINER
        or (not char.isascii() and unicodedata.category(char) in _MARKS)
        or ord(char) in _SKIN_TONES
    )


def _fold(cluster: str) -> str:
    if cluster.isspace():
        return " "
    folded = unicodedata.normalize("NFKC", cluster).casefold()
    if folded.isascii():
        return folded
    return "".join(char for char in folded if not _is_invisible(char))


def _is_invisible(char: str) -> bool:
    """Marks of direction, joiners, soft hyphens, and the selectors of an emoji's looks."""
    return unicodedata.category(char) == "Cf" or "\ufe00" <= char <= "\ufe0f"


@lru_cache(4_096)
def _has_no_borders(char: str) -> bool:
    words = unicodedata.name(char, "").replace("-", " ").split()[:2]
    return not _WITHOUT_BORDERS.isdisjoint(words)
