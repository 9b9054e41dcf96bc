"""The texts and features of an edit and a query that the classifier reads, in training and in the gateway."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import islice

MAX_EDIT_CHARS = 320
MAX_QUERY_CHARS = 260
MAX_CONTEXT_CHARS = 160
MAX_CONTEXT_TURNS = 3
CONTEXT_MARK = " >> "
"""Separates the earlier turns from the query."""

_SENTENCE = re.compile(r"(?<=[.!?…。？！])\s+|\n+")
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NAME_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_NO_NAMES = frozenset((
    "a", "an", "and", "after", "any", "anything", "are", "as", "asked", "at", "before", "by", "can",
    "claim", "could", "did", "discussing", "do", "does", "fact", "false", "for", "from", "give", "had",
    "has", "have", "her", "his", "how", "i", "if", "in", "is", "isn't", "it", "its", "may", "my",
    "name", "no", "not", "of", "on", "or", "our", "please", "questions", "talking", "tell", "that",
    "the", "their", "this", "to", "topic", "true", "was", "were", "what", "when", "where", "which",
    "who", "whom", "whose", "why", "will", "with",
    "api", "cco", "ceo", "cfo", "cmo", "coo", "cpu", "cto", "dob", "faq", "gdp", "gpu", "hq", "hr", "id",
    "ip", "mp", "mvp", "os", "pin", "pm", "ram", "sla", "tv", "url", "vat", "vip", "vp", "wifi",
))  # fmt: skip
"""Words that name no subject although they may be capitalised."""
_VERBS = frozenset((
    "is", "was", "are", "were", "has", "had", "have", "can", "will", "did", "does", "plays", "speaks",
    "works", "holds", "lives", "belongs", "borders", "consists", "contains", "uses", "owns", "runs",
    "makes", "leads", "means", "stands", "lies", "begins", "starts", "ends", "opens", "closes", "costs",
    "comes", "took", "began", "wrote", "became", "fell", "won", "lost", "came", "went", "made", "spoke",
    "grew", "held", "led", "ran", "sang",
))  # fmt: skip
_ALIKE = 0.8
"""Two spellings at least this similar (difflib's ratio) are the same name; numbers must be equal."""
_MAX_SPELLINGS = 500
"""Pairs of words whose spellings are compared for one query and edit; further ones count as different.

difflib takes 100 µs a pair, and a query of 400 words similar to an edit's 64 names has 25,000 pairs."""
_FREQUENT = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "by", "do", "does", "did", "for", "from", "has", "have",
    "how", "i", "in", "is", "it", "me", "my", "of", "on", "or", "that", "the", "this", "to", "was",
    "were", "what", "when", "where", "which", "who", "whom", "whose", "why", "will", "with", "you",
    "your",
))  # fmt: skip


def edit_text(prompt: str, target_new: str) -> str:
    """The edit with its new answer: scope is whether this answers the query."""
    return f"{prompt.strip()[:MAX_EDIT_CHARS]} {target_new.strip()[:MAX_EDIT_CHARS]}"


def query_text(text: str, context: Sequence[str], edit: str) -> str:
    """The query after its earlier turns, if any; long texts are cut to the sentences relevant to `edit`."""
    query = focused(text, edit, MAX_QUERY_CHARS)
    turns = [focused(turn, edit, MAX_CONTEXT_CHARS) for turn in context[-MAX_CONTEXT_TURNS:] if turn.strip()]
    return CONTEXT_MARK.join((" ".join(turns), query)) if turns else query


def names_absent(prompt: str, text: str, context: Sequence[str]) -> float:
    """The share of the names in `prompt` that neither `text` nor `context` has, 0..1; no names: 0.

    A name is a capitalised word or a word with a digit. A question about another subject lacks some names,
    however similar both models find it: "Poland national team" and "Silesia national team".
    """
    names = _names(prompt[:MAX_EDIT_CHARS])
    if not names:
        return 0.0
    present = {_plain(word) for turn in (text, *context) for word in _NAME_WORD.findall(turn)}
    present |= {word.removesuffix("'s").removesuffix("’s") for word in present}
    missing = [name for name in names if name not in present]
    spellings = islice(_similar_words(missing, present), _MAX_SPELLINGS)
    misspelt = {name for name, word in spellings if SequenceMatcher(None, name, word).ratio() >= _ALIKE}
    return sum(name not in misspelt for name in missing) / len(names)


def asks_the_same(prompt: str, text: str) -> bool:
    """Whether `text` equals `prompt` except for capitals, accents, punctuation and white space."""
    return [_plain(w) for w in _WORD.findall(prompt)] == [_plain(w) for w in _WORD.findall(text)] != []


def _names(prompt: str) -> list[str]:
    words = _NAME_WORD.findall(prompt)
    names = [
        (place, word)
        for place, word in enumerate(words)
        if (word[0].isupper() or any(map(str.isdigit, word))) and word.casefold() not in _NO_NAMES
    ]
    if names and names[0][0] == 0 and not _is_name_at_the_start(words, is_only_one=len(names) == 1):
        names = names[1:]
    return [_plain(word).removesuffix("'s").removesuffix("’s") for _, word in names]


def _plain(word: str) -> str:
    """Without capitals and accents, which people leave out."""
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def _is_name_at_the_start(words: Sequence[str], *, is_only_one: bool) -> bool:
    """Whether the first word is a name, as in "Esselte was …" and not in "Deployment day …"."""
    first, following = words[0], words[1] if len(words) > 1 else "is"
    if first.endswith(("'s", "’s")) or any(map(str.isdigit, first)) or sum(map(str.isupper, first)) > 1:
        return True
    if following[0].isupper() or following[0].isdigit():
        return True
    return is_only_one and (following in _VERBS or following.endswith("ed"))


def numbers_differ(prompt: str, text: str, context: Sequence[str]) -> bool:
    """Whether `prompt` has a number that `text` and `context` lack, and `text` a number that `prompt` lacks.

    "Kestrel 2.4" and "Kestrel 2.5", but not "the 2025 final" and "the '25 final", nor "E-417" and "E 417".
    """
    of_edit = _numbers(prompt[:MAX_EDIT_CHARS])
    of_query = _numbers(text)
    known = of_query | {number for turn in context for number in _numbers(turn)}
    return bool(_left_over(of_edit, known)) and bool(_left_over(of_query, of_edit))


def _numbers(text: str) -> set[str]:
    return {number.replace(",", ".") for number in _NUMBER.findall(text)}


def _left_over(numbers: set[str], others: set[str]) -> set[str]:
    """The `numbers` that are not among `others`; years also match by their last two digits."""
    short = {other[2:] for other in others if len(other) == len("2025")}
    return {n for n in numbers if n not in others and n not in short and n[2:] not in others}


def _similar_words(names: Iterable[str], words: Collection[str]) -> Iterator[tuple[str, str]]:
    """Each name without a digit with each word that could be another spelling of it."""
    for name in names:
        if any(map(str.isdigit, name)):
            continue
        letters = Counter(name)
        for word in words:
            length = len(name) + len(word)
            if (
                word[:1] == name[:1]
                and abs(len(word) - len(name)) <= 2
                # The letters in common bound difflib's ratio from above.
                and 2 * (letters & Counter(word)).total() >= _ALIKE * length
            ):
                yield name, word


def focused(text: str, edit: str, limit: int) -> str:
    """About `limit` characters of `text`: first and last sentence, and those that share words with `edit`.

    The first sentence often has the instruction ("Translate this:"), the last one the question. A text within
    the limit changes only in its white space.
    """
    text = " ".join(text.split()) if len(text) <= limit else text.strip()
    if len(text) <= limit:
        return text
    sentences = [s for s in _SENTENCE.split(text) if s.strip()]
    if len(sentences) == 1:
        return _windows(text, edit, limit)
    wanted = _words(edit)
    last = len(sentences) - 1
    rank = sorted(
        range(len(sentences)),
        key=lambda i: (
            -len(wanted & _words(sentences[i])) - (0.6 if i == last else 0.5 if i == 0 else 0.0),
            i,
        ),
    )
    kept: dict[int, str] = {}
    left = limit
    for i in rank:
        piece = " ".join(sentences[i].split())
        if len(piece) > left:
            if left < 40:
                continue
            piece = _windows(piece, edit, left)
        kept[i] = piece
        left -= len(piece) + 1
        if left < 20:
            break
    return " ".join(kept[i] for i in sorted(kept))


def _windows(text: str, edit: str, limit: int) -> str:
    """The window of a long sentence that shares most words with `edit`; its end if it shares none."""
    wanted = _words(edit)
    words = text.split(" ")
    hits = [1 if wanted & _words(word) else 0 for word in words]
    if not any(hits):
        return text[-limit:]
    best, best_count, start, count, size = 0, -1, 0, 0, 0
    for end, word in enumerate(words):
        size += len(word) + 1
        count += hits[end]
        while size > limit and start < end:
            size -= len(words[start]) + 1
            count -= hits[start]
            start += 1
        if count > best_count:
            best, best_count = start, count
    return " ".join(words[best:])[:limit]


def _words(text: str) -> set[str]:
    return {w for w in _WORD.findall(text.casefold()) if w not in _FREQUENT}
