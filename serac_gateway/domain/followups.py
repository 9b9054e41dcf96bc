"""Whether a turn may need the turns before it to be understood, decided by its words alone. Pure."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))


_SMALL_TALK_STARTS = _words(
    "ok okay thanks thank thx ty cheers great cool nice perfect awesome good wow sure yes yeah yep no nope"
    " hi hey hello bye goodbye got i see understood lol haha interesting nevermind never please"
)
_SMALL_TALK_WORDS = _SMALL_TALK_STARTS | _words(
    "you so very much a lot many again for that this it the your help helps there morning evening night day"
    " one mind problem worries all is was now well done to know"
)
_REFERS_BACK = re.compile(
    r"^\W*(?:and|but|or|so|also|then|what about|how about|what else|why|since when)\b"
    r"|\b(?:now|currently)\W*$"
    r"|\b(?:it|its|he|him|his|she|her|hers|they|them|their|theirs|this|that|these|those|there|then|former|latter"
    r"|same|instead|other one|else)\b",
    re.IGNORECASE,
)


def is_followup(text: str, short_words: int) -> bool:
    """Whether `text` may need the turns before it: short, or with a pronoun; small talk never does."""
    if is_small_talk(text):
        return False
    return len(text.split()) <= short_words or _REFERS_BACK.search(text) is not None


def is_small_talk(text: str) -> bool:
    """Whether `text` is thanks, a greeting or the like and nothing else."""
    first = re.search(r"\w+", text)
    return (
        first is not None
        and first[0].casefold() in _SMALL_TALK_STARTS
        and _SMALL_TALK_WORDS.issuperset(_words(text))
    )
