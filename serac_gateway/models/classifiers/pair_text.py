"""The two texts that the cross-encoder reads, in training and in the gateway: the edit, and the request.

The request is read with what is to be done with its text: the system prompt, earlier turns, and of a long
message beginning, end and the sentences most like the edit, since a task mostly stands at one of the ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_EDIT_CHARS = 240
MAX_TARGET_CHARS = 120
MAX_TEXT_CHARS = 420
"""A longer text is cut to its two ends and to what is like the edit between them."""
END_CHARS = 140
MAX_TURN_CHARS = 160
MAX_TURNS = 3
TARGET_MARK = " → "
TURN_MARK = " » "
INSTRUCTIONS_MARK = "system: "
_GAP = " … "
_WHITE_SPACE = re.compile(r"\s+")
_SENTENCE_END = re.compile(r"(?<=[.!?…。？！؟।])\s*|\n+")
_MAX_SENTENCES = 200
_QUESTION_BONUS = 0.25
_GRAM = 3


def edit_text(prompt: str, target_new: str) -> str:
    """The edit: its prompt and its answer. In scope is whether this answers the request."""
    return f"{_cut(prompt, MAX_EDIT_CHARS)}{TARGET_MARK}{_cut(target_new, MAX_TARGET_CHARS)}"


def request_text(text: str, context: Sequence[str], instructions: str, edit: str) -> str:
    """The request: instructions, earlier turns and the last text, in this order, each cut."""
    pieces = []
    if instructions:
        pieces.append(INSTRUCTIONS_MARK + focused(instructions, edit, MAX_TEXT_CHARS))
    pieces += [focused(turn, edit, MAX_TURN_CHARS) for turn in context[-MAX_TURNS:] if turn.strip()]
    pieces.append(focused(text, edit, MAX_TEXT_CHARS))
    return TURN_MARK.join(pieces)


def focused(text: str, edit: str, limit: int) -> str:
    """`text` on one line, of at most about `limit` characters: both ends, and what is like `edit` between.

    Likeness is the share of a sentence's character trigrams that the edit has, so that it needs no words and
    no language; questions come first at equal likeness.
    """
    spaced = _WHITE_SPACE.sub(" ", text).strip()
    if len(spaced) <= limit:
        return spaced
    end = min(END_CHARS, limit // 3)
    head, tail = spaced[:end].rsplit(" ", 1)[0], spaced[-end:]
    room = limit - 2 * end
    between = [" ".join(s.split()) for s in _SENTENCE_END.split(text)[:_MAX_SENTENCES]]
    grams = _grams(edit)
    ranked = sorted(
        ((_likeness(sentence, grams), place) for place, sentence in enumerate(between) if sentence),
        reverse=True,
    )
    kept: list[int] = []
    for likeness, place in ranked:
        sentence = between[place]
        if likeness <= _QUESTION_BONUS / 2 or room <= 0:
            break
        if sentence in head or sentence in tail:
            continue
        kept.append(place)
        room -= len(sentence)
    middle = [_cut(between[place], limit - 2 * end) for place in sorted(kept)]
    return _GAP.join((head, *middle, tail))


def _likeness(sentence: str, grams: frozenset[str]) -> float:
    own = _grams(sentence)
    bonus = _QUESTION_BONUS if sentence.endswith(("?", "？", "؟")) else 0.0
    return bonus + len(own & grams) / max(8, len(own)) if own else 0.0


def _grams(text: str) -> frozenset[str]:
    plain = text.casefold()
    return frozenset(plain[i : i + _GRAM] for i in range(len(plain) - _GRAM + 1))


def _cut(text: str, limit: int) -> str:
    """`text` on one line; of a longer one the beginning and, as that is where a cloze asks, its end."""
    spaced = _WHITE_SPACE.sub(" ", text).strip()
    if len(spaced) <= limit:
        return spaced
    half = (limit - len(_GAP)) // 2
    return f"{spaced[:half]}{_GAP}{spaced[-half:]}"
