"""Short passages of long texts, for decisions that must not miss a question in the middle. Pure.

A suppression has to see its question wherever it stands. To embed every sentence of every turn would cost
seconds, so passages are ranked by the words that they share with the suppressions, and a bounded number of
them is read; of the user's latest words some are read whatever their words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from heapq import nlargest

import msgspec

MAX_PASSAGES = 64
"""Of a request; to embed so many takes some 0.1 s."""
MAX_UNRELATED_PASSAGES = 16
"""Of the user's latest words, passages that are read though they share no word with a suppression."""
MAX_QUESTIONS = 24
"""Of one long text."""
MAX_PASSAGE_CHARS = 260
"""As much as the scope classifier reads of a query."""
_STRIDE_CHARS = 130
_MIN_PASSAGE_CHARS = 4
_CHUNK_CHARS = 65_536
"""The regular expressions below hold the interpreter while they run, so they run on this much at a time."""
_SEARCHED_CHARS = 32_768
"""At each end of a long text, in which questions without a question mark are searched for."""
_STEM_LETTERS = 5
_MIN_LETTERS = 3

_SENTENCE_END = re.compile(r"(?<=[.!?…。？！])\s+|\n+")
_QUESTION_WORD = re.compile(
    r"(?:^|[\n.!?:;][ \t]{0,4})"
    r"(?:who|whom|whose|what|when|where|why|how|which|is|are|does|do|can|tell me|give me)\b",
    re.IGNORECASE,
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_WORD = re.compile(r"\w+")
_COMMON = frozenset((
    "a", "an", "and", "any", "are", "as", "at", "been", "by", "can", "could", "did", "do", "does", "for",
    "from", "give", "had", "has", "have", "her", "his", "how", "if", "in", "is", "it", "its", "many", "me",
    "much", "my", "not", "of", "on", "one", "or", "our", "out", "say", "she", "tell", "that", "the", "their",
    "there", "they", "this", "to", "us", "was", "we", "were", "what", "when", "where", "which", "who", "whom",
    "whose", "why", "will", "with", "would", "you", "your",
))  # fmt: skip


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A passage of a request's text."""

    text: str
    """At most MAX_PASSAGE_CHARS characters."""
    reply: str | None = None
    """The assistant's turn that followed: where it is the suppression's refusal, the matter is settled."""


class SpokenText(msgspec.Struct, frozen=True, kw_only=True):
    """A text of a request, of any length."""

    text: str
    is_latest: bool = False
    """Whether it belongs to the user's latest words."""
    reply: str | None = None
    """See `Passage.reply`."""


def plain(text: str) -> str:
    """`text` without capitals, accents and invisible characters."""
    folded = text.casefold()
    if folded.isascii():
        return folded
    decomposed = unicodedata.normalize("NFKD", _INVISIBLE.sub("", folded))
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def topic_stems(texts: Iterable[str]) -> frozenset[str]:
    """The beginnings of the words in `texts` that say what they are about; pairs of letters in CJK."""
    stems: set[str] = set()
    for text in texts:
        for word in _WORD.findall(plain(text)):
            if ord(max(word)) > 0x2E80:  # written without spaces
                stems.update(word[start : start + 2] for start in range(max(1, len(word) - 1)))
            elif word.isdigit() or (len(word) >= _MIN_LETTERS and word not in _COMMON):
                stems.add(word[:_STEM_LETTERS])
    return frozenset(stems)


def likeliest_passages(texts: Sequence[SpokenText], stems: frozenset[str]) -> list[Passage]:
    """The passages that share most of `stems`, at most MAX_PASSAGES, most related first."""
    ranked: list[tuple[int, int, Passage]] = []
    unrelated: list[Passage] = []
    order = 0
    for spoken in texts:
        for part in _parts(spoken.text):
            related = bool(_shared(plain(part), stems))
            if not related and not (spoken.is_latest and len(unrelated) < MAX_UNRELATED_PASSAGES):
                continue
            for text in passages_in(part):
                passage = Passage(text=text, reply=spoken.reply)
                shared = _shared(plain(text), stems)
                if shared:
                    order -= 1
                    ranked.append((shared, order, passage))
                elif spoken.is_latest and len(unrelated) < MAX_UNRELATED_PASSAGES:
                    unrelated.append(passage)
    best = [passage for _, _, passage in nlargest(MAX_PASSAGES - len(unrelated), ranked, _rank)]
    return list(dict.fromkeys((*best, *unrelated)))


def _rank(ranked: tuple[int, int, Passage]) -> tuple[int, int]:
    return ranked[:2]


def passages_in(text: str) -> Iterator[str]:
    """The sentences of `text`, and windows over all of it: a question may reach across sentences."""
    whole = " ".join(text.split())
    if len(whole) < _MIN_PASSAGE_CHARS:
        return
    sentences = [" ".join(sentence.split()) for sentence in _SENTENCE_END.split(text)]
    if len(sentences) > 1:
        for sentence in sentences:
            if _MIN_PASSAGE_CHARS <= len(sentence) <= MAX_PASSAGE_CHARS and len(sentence) < len(whole):
                yield sentence
    yield from _windows(whole)


def questions_in(text: str) -> tuple[str, ...]:
    """The sentences of a long `text` that ask something, at most MAX_QUESTIONS: the first and the last."""
    ends = _places_of("?", text) or _places_of("？", text)
    passages = [_sentence_ending_at(text, end) for end in ends]
    for start in {0, max(0, len(text) - _SEARCHED_CHARS)}:
        part = text[start : start + _SEARCHED_CHARS]
        for match, _ in zip(_QUESTION_WORD.finditer(part), range(MAX_QUESTIONS), strict=False):
            passages.append(_sentence_starting_at(part, match.start()))
    sentences = [" ".join(sentence.split()).encode("utf-8", "replace").decode() for sentence in passages]
    kept = list(dict.fromkeys(sentence for sentence in sentences if len(sentence) >= _MIN_PASSAGE_CHARS))
    return tuple(kept[:MAX_QUESTIONS])


def _parts(text: str) -> Iterator[str]:
    """`text` in parts of bounded length, which overlap by a passage."""
    for start in range(0, max(1, len(text) - MAX_PASSAGE_CHARS), _CHUNK_CHARS - MAX_PASSAGE_CHARS):
        yield text[start : start + _CHUNK_CHARS]


def _windows(text: str) -> Iterator[str]:
    if len(text) <= MAX_PASSAGE_CHARS:
        yield text
        return
    for start in range(0, len(text) - _STRIDE_CHARS, _STRIDE_CHARS):
        yield text[start : start + MAX_PASSAGE_CHARS]


def _shared(text: str, stems: frozenset[str]) -> int:
    return sum(stem in text for stem in stems)


def _places_of(sign: str, text: str) -> list[int]:
    """Where the first and the last of many signs stand."""
    half = MAX_QUESTIONS // 2
    first: list[int] = []
    place = text.find(sign)
    while place >= 0 and len(first) < half:
        first.append(place)
        place = text.find(sign, place + 1)
    last: list[int] = []
    place = text.rfind(sign)
    while place >= 0 and len(last) < half and (not first or place > first[-1]):
        last.append(place)
        place = text.rfind(sign, 0, place)
    return [*first, *reversed(last)]


def _sentence_ending_at(text: str, end: int) -> str:
    before = text[max(0, end - MAX_PASSAGE_CHARS) : end + 1]
    return _SENTENCE_END.split(before.strip())[-1]


def _sentence_starting_at(text: str, start: int) -> str:
    sentence = text[start : start + MAX_PASSAGE_CHARS].lstrip("\n.!?:; ")
    return _SENTENCE_END.split(sentence, maxsplit=1)[0]
