"""The pieces of one sentence that may ask for a form beside what the sentence asks. Pure.

"In one word: who runs it?" is two clauses, "tell me in German who runs it" has the form in its middle. Signs
separate the first; for the second every beginning and end is a piece, and windows of a few words within.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from serac_gateway.domain.parts import weight

MAX_WINDOWS, MAX_CLAUSES = 28, 8
"""Of one sentence: each is embedded."""
CLAUSE_END = re.compile(r"[,;:—–()（）、，；：]")
_UNSPACED = r"\u2e80-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]{{1,2}}|[^\s{_UNSPACED}]+")
"""Where words are written without spaces, some letters stand for one."""
_MIN_WEIGHT = 4
_WITHIN = (2, 3, 5)
"""Words of the windows within."""


def windows(sentence: str) -> list[tuple[int, int]]:
    """Where the pieces of `sentence` begin and end: clauses, then beginnings and ends, then the rest."""
    return _kept(sentence, [*_clauses(sentence), *_sides(sentence), *_within(sentence)])[:MAX_WINDOWS]


def rough_pieces(sentence: str) -> list[tuple[int, int]]:
    """The clauses of `sentence`, and its halves and thirds at both ends: a form shows in one of these."""
    words = [match.span() for match in _WORD.finditer(sentence)]
    spans = _clauses(sentence)[:MAX_CLAUSES]
    for share in (2, 3):
        count = len(words) // share
        if count:
            spans += [(0, words[count - 1][1]), (words[-count][0], len(sentence))]
    return _kept(sentence, spans)


def clauses(sentence: str) -> list[tuple[int, int]]:
    """Where the clauses of `sentence` begin and end, as its signs separate them; one if none does."""
    spans = (_trimmed(sentence, *span) for span in _clauses(sentence)[:MAX_CLAUSES])
    return [span for span in spans if weight(sentence[slice(*span)]) >= _MIN_WEIGHT]


def _kept(sentence: str, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those that are neither the whole sentence nor next to nothing, each once."""
    whole = _trimmed(sentence, 0, len(sentence))
    trimmed = (_trimmed(sentence, *span) for span in spans)
    return list(
        dict.fromkeys(
            span for span in trimmed if span != whole and weight(sentence[slice(*span)]) >= _MIN_WEIGHT
        )
    )


def _clauses(sentence: str) -> list[tuple[int, int]]:
    """Between signs that are not part of a number ("10:00", "2,340") or within quotation marks."""
    ends = [
        match.start()
        for match in CLAUSE_END.finditer(sentence)
        if not (
            sentence[match.end() : match.end() + 1].isalnum() and ord(match[0]) < 0x80 and match[0] != "("
        )
    ]
    begins = [0, *(end + 1 for end in ends)]
    return list(zip(begins, [*ends, len(sentence)], strict=True))


def _sides(sentence: str) -> list[tuple[int, int]]:
    words = [match.span() for match in _WORD.finditer(sentence)]
    half = MAX_WINDOWS // 2
    cuts = [begin for begin, _ in words[1:]]
    step = max(1, -(-len(cuts) * 2 // half))
    ends = [(cut, len(sentence)) for cut in reversed(cuts)][:half:step]
    beginnings = [(0, cut) for cut in cuts][:half:step]
    return [span for pair in zip(ends, beginnings, strict=True) for span in pair]


def _within(sentence: str) -> list[tuple[int, int]]:
    words = [match.span() for match in _WORD.finditer(sentence)]
    return [
        (words[first][0], words[first + count - 1][1])
        for count in _WITHIN
        for first in range(1, len(words) - count)
    ]


def _trimmed(sentence: str, begin: int, end: int) -> tuple[int, int]:
    """Without white space and signs at the edges."""
    while begin < end and not _is_inner(sentence[begin]):
        begin += 1
    while end > begin and not _is_inner(sentence[end - 1]):
        end -= 1
    return begin, end


def _is_inner(sign: str) -> bool:
    return not sign.isspace() and sign not in ",;:.!?—–、，；：。！？"
