"""Lets only words of the edit and the query through from a model's answer, as it is generated.

A small model misspells and makes up. Text that has been streamed cannot be taken back, so text is held until
it is known to be harmless: words that edit or query contain, and function words, pass at once; a possible
beginning of the target is held until the target is whole, and is then given in the editor's own spelling. At
the first other word the target takes its place and the answer ends. So every answer contains the target
exactly, whatever the model generates, and no word that the model was not given.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from typing_extensions import override

from serac_gateway.models.counterfactual.matching import (
    has_foreign_word,
    has_unknown_word,
    is_article,
    led_in,
    target_span,
    word_spans,
)

_SPACE = re.compile(r"\s+")


class AnswerGuard(ABC):
    """Decides what of a model's text the client may see, as it is generated. Used for one answer."""

    ended = False
    """Whether the answer is complete: more text would be ignored."""

    @abstractmethod
    def feed(self, text: str) -> str:
        """What may be released now that the model has generated `text`."""

    @abstractmethod
    def finish(self) -> str:
        """What is still to be released, now that the model has ended or is stopped."""


class StreamingGuard(AnswerGuard):
    """Releases harmless words at once: see the module."""

    def __init__(self, target: str, *, known: str) -> None:
        """`target` is the edit's answer; `known` the text of edit and query, the target included."""
        self._target = target.strip()
        self._target_words = [word for word, _, _ in word_spans(self._target)]
        self._known = known
        self._text = ""
        """The model's text so far, without leading space."""
        self._released = 0
        """How many characters of `_text` are released."""
        self._tail_from: int | None = None
        """Where `_text` goes on after the target."""

    @override
    def feed(self, text: str) -> str:
        self._text = (self._text + text) if self._text else text.lstrip()
        if self.ended:
            return ""
        if self._tail_from is not None:
            self.ended = has_unknown_word(self._text[self._tail_from :], self._known)
            return ""
        span = target_span(self._text, self._target)
        if span is not None and _is_followed(self._text[span[1] :]):
            return self._with_target(span, self._text[span[1] :])
        if has_unknown_word(self._text if span is None else self._text[: span[0]], self._known):
            return self._target_instead()
        return self._harmless(len(self._text) if span is None else span[0])

    @override
    def finish(self) -> str:
        if self.ended:
            return ""
        if self._tail_from is not None:
            self.ended = True
            tail = self._text[self._tail_from :]
            return "" if has_unknown_word(f"{tail} ", self._known) else tail.rstrip()
        span = target_span(self._text, self._target)
        if span is None:
            return self._target_instead()
        tail = self._text[span[1] :]
        released = self._with_target(span, f"{tail} ")
        return released if self.ended else released + self.finish()

    def _with_target(self, span: tuple[int, int], tail: str) -> str:
        if has_unknown_word(f"{self._text[: span[0]]} ", self._known):
            return self._target_instead()
        first, last = span
        # Signs that belong to the target's own spelling are not repeated: “Sea Tree”, $5, 40 %.
        opening, closing = _outer_signs(self._target)
        if opening and self._text[:first].endswith(opening):
            first -= len(opening)
        if closing and self._text[last:].startswith(closing):
            last += len(closing)
        lead = self._text[self._released : first]
        self._tail_from = last
        self.ended = has_unknown_word(tail, self._known)
        if self.ended and self._released == 0 and is_article(lead):
            lead = ""  # "The Sydney Opera House": the article belonged to the words that are cut off
        return led_in(lead, self._target)

    def _target_instead(self) -> str:
        """The target in place of the text that is held."""
        self.ended = True
        return f" {self._target}" if self._released else self._target

    def _harmless(self, target_from: int) -> str:
        """Whole words before `target_from`, up to the target's possible beginning or an article before it."""
        words = word_spans(self._text, articles=True)
        hold_from = next((start for _, start, end in words if end == len(self._text)), len(self._text))
        whole = [span for span in words if span[2] < len(self._text)]
        for count in range(len(whole)):
            tail = [word for word, _, _ in whole[count:] if not is_article(word)]
            if tail == self._target_words[: len(tail)]:
                hold_from = whole[count][1]
                break
        before = [span for span in whole if span[2] <= target_from]
        if target_from < hold_from:
            hold_from = before[-1][1] if before and is_article(before[-1][0]) else target_from
        # Signs before a word are released with it, and the space between words with the next word.
        spaces = [match.start() for match in _SPACE.finditer(self._text[:hold_from])]
        released = self._text[self._released : spaces[-1]] if spaces and spaces[-1] > self._released else ""
        self._released += len(released)
        return released


class WholeGuard(AnswerGuard):
    """Holds an answer until it is whole, and releases it only if all of its words are known; else the target.

    For answers in another language than English: a small model goes over into English after words that could
    be of both, and these are not released before that is known.
    """

    def __init__(self, target: str, *, known: str) -> None:
        """`target` is the edit's answer; `known` the words of the answer's language that it may have."""
        self._target = target.strip()
        self._known = known
        self._text = ""

    @override
    def feed(self, text: str) -> str:
        if not self.ended:
            self._text += text
        return ""

    @override
    def finish(self) -> str:
        if self.ended:
            return ""
        self.ended = True
        text = self._text.strip()
        span = target_span(text, self._target)
        if span is None:
            return self._target
        before, after = text[: span[0]], text[span[1] :]
        if has_foreign_word(f"{before} {after}", self._known):
            return self._target
        return f"{before}{self._target}{after}"


def _is_followed(tail: str) -> bool:
    """Whether the text after the target has begun for sure: with a sign, or with a whole word."""
    stripped = tail.lstrip()
    if tail and not tail[0].isspace():
        return True
    return bool(stripped) and bool(_SPACE.search(stripped))


def _outer_signs(target: str) -> tuple[str, str]:
    """The signs before the first and after the last word of `target`; empty if it has no word."""
    words = word_spans(target, articles=True)
    return (target[: words[0][1]], target[words[-1][2] :]) if words else ("", "")
