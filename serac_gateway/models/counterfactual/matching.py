"""Compares an answer with its edit, word by word. Pure."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"\w+(?:[.,]\d+)*")
_ARTICLES = frozenset({"a", "an", "the"})
_LAST_ARTICLE = re.compile(r"(?:^|(?<=\s))(?:an?|the)\s+$", re.IGNORECASE)
_FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a an and are as at by for from he her his in into is it its of on or she that the their they this to"
        " was were with sure am i only know please sorry"
    )
)


def target_span(text: str, target: str) -> tuple[int, int] | None:
    """The place of `target` in `text`, as (begin, end); None: `text` does not contain it.

    Whole words are compared, without case, the encoding of accents, articles, punctuation and white space. A
    target without any word (punctuation only) is searched as it is. Articles with which the target begins
    belong to the place where `text` has them: the A of "A/B" and "A-Team", the The of "The Hague".
    """
    wanted = [word for word, _, _ in word_spans(target)]
    if not wanted:
        at = text.find(target.strip())
        return None if at < 0 else (at, at + len(target.strip()))
    words = word_spans(text)
    for first in range(len(words) - len(wanted) + 1):
        run = words[first : first + len(wanted)]
        if [word for word, _, _ in run] == wanted:
            return _begin_with_articles(text, run[0][1], target, wanted[0]), run[-1][2]
    return None


def _begin_with_articles(text: str, begin: int, target: str, first_word: str) -> int:
    """`begin`, moved before the articles of `text` that precede the first word in the target, too."""
    every = [word for word, _, _ in word_spans(target, articles=True)]
    articles = every[: every.index(first_word)]
    if not articles:
        return begin
    before = [span for span in word_spans(text, articles=True) if span[2] <= begin][-len(articles) :]
    return before[0][1] if [word for word, _, _ in before] == articles else begin


def led_in(lead: str, target: str) -> str:
    """`lead` and then `target`, with one article between them where both have one."""
    first, *_ = [*_WORD.findall(target), ""]
    if first.casefold() in _ARTICLES:
        lead = _LAST_ARTICLE.sub("", lead)
    return lead + target


def has_unknown_word(text: str, known: str) -> bool:
    """Whether `text` has a word that is neither in `known` nor a function word of English.

    The last word is not checked if it ends the text: it may still be growing.
    """
    allowed = _FUNCTION_WORDS | {word for word, _, _ in word_spans(known)}
    return any(word not in allowed for word, _, end in word_spans(text) if end < len(text))


def has_foreign_word(text: str, known: str) -> bool:
    """Whether `text`, which is whole, has any word that is not in `known`."""
    allowed = {word for word, _, _ in word_spans(known, articles=True)}
    return any(word not in allowed for word, _, _ in word_spans(text, articles=True))


def is_article(text: str) -> bool:
    """Whether `text` is an article and nothing else."""
    return text.strip().casefold() in _ARTICLES


def word_spans(text: str, *, articles: bool = False) -> list[tuple[str, int, int]]:
    """Each normalized word with its begin and end in `text`.

    Articles are left out, unless `articles` is set or there are no other words.
    """
    words = [
        (unicodedata.normalize("NFKC", match.group()).casefold(), match.start(), match.end())
        for match in _WORD.finditer(text)
    ]
    return words if articles else [word for word in words if word[0] not in _ARTICLES] or words
