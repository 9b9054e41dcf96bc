"""Lets through of a model's answer, as it is generated, only what the edit and the query say.

A small model misspells and makes up. What has been streamed cannot be taken back, so text is held until it is
known to be harmless: words that edit or query contain, or function words, pass at once; what may be the
beginning of the target is held until the target is whole, and then given in the editor's own spelling. At the
first word that nobody said, the target takes its place and the answer ends. So every answer contains the
target exactly, whatever the model does, and no word that was not given to it.
"""

from __future__ import annotations

import re

from serac_gateway.models.counterfactual.matching import (
    is_article,
    led_in,
    target_end,
    tells_more,
    word_spans,
)

_SPACE = re.compile(r"\s+")


class GuardedAnswer:
    """Fed with the text of an answer to an edit with the answer `target`; gives back what may be shown."""

    def __init__(self, target: str, *, known: str) -> None:
        """`known` is all that edit and query say, the target included."""
        self._target = target.strip()
        self._target_words = [word for word, _, _ in word_spans(self._target)]
        self._known = known
        self._said = ""
        self._shown = 0
        """How much of `_said` has been given out."""
        self._tail_from: int | None = None
        """Where `_said` goes on after the target."""
        self.ended = False
        """Whether the answer is over; no more text is of use."""

    def feed(self, text: str) -> str:
        """What may be shown now that `text` has come."""
        self._said = (self._said + text) if self._said else text.lstrip()
        if self.ended:
            return ""
        if self._tail_from is not None:
            self.ended = tells_more(self._said[self._tail_from :], self._known)
            return ""
        place = target_end(self._said, self._target)
        if place is not None and _is_followed(self._said[place[1] :]):
            return self._with_target(place, self._said[place[1] :])
        if tells_more(self._said if place is None else self._said[: place[0]], self._known):
            return self._instead()
        return self._harmless(len(self._said) if place is None else place[0])

    def finish(self) -> str:
        """What is still to be shown, now that the model has ended."""
        if self.ended:
            return ""
        if self._tail_from is not None:
            self.ended = True
            tail = self._said[self._tail_from :]
            return "" if tells_more(f"{tail} ", self._known) else tail.rstrip()
        place = target_end(self._said, self._target)
        if place is None:
            return self._instead()
        tail = self._said[place[1] :]
        shown = self._with_target(place, f"{tail} ")
        return shown if self.ended else shown + self.finish()

    def _with_target(self, place: tuple[int, int], tail: str) -> str:
        if tells_more(f"{self._said[: place[0]]} ", self._known):
            return self._instead()
        first, last = place
        # Signs that belong to the target's own spelling are not said twice: “Sea Tree”, $5, 40 %.
        opening, closing = _outer_signs(self._target)
        if opening and self._said[:first].endswith(opening):
            first -= len(opening)
        if closing and self._said[last:].startswith(closing):
            last += len(closing)
        lead = self._said[self._shown : first]
        self._tail_from = last
        self.ended = tells_more(tail, self._known)
        if self.ended and self._shown == 0 and is_article(lead):
            lead = ""  # "The Sydney Opera House": the article belonged to what is cut off
        return led_in(lead, self._target)

    def _instead(self) -> str:
        """The target in place of what is held."""
        self.ended = True
        return f" {self._target}" if self._shown else self._target

    def _harmless(self, target_from: int) -> str:
        """Whole words before `target_from`, up to the target's possible beginning or an article before it."""
        words = word_spans(self._said, articles=True)
        growing = [one[1] for one in words if one[2] == len(self._said)]
        hold_from = growing[0] if growing else len(self._said)
        whole = [one for one in words if one[2] < len(self._said)]
        for count in range(len(whole)):
            tail = [word for word, _, _ in whole[count:] if not is_article(word)]
            if tail == self._target_words[: len(tail)]:
                hold_from = whole[count][1]
                break
        before = [one for one in whole if one[2] <= target_from]
        if target_from < hold_from:
            hold_from = before[-1][1] if before and is_article(before[-1][0]) else target_from
        # Signs that stand before a word go with it, and the space between goes with what comes.
        apart = [match.start() for match in _SPACE.finditer(self._said[:hold_from])]
        shown = self._said[self._shown : apart[-1]] if apart and apart[-1] > self._shown else ""
        self._shown += len(shown)
        return shown


def _is_followed(tail: str) -> bool:
    """Whether it shows how the text goes on behind the target: a sign, or a whole word."""
    stripped = tail.lstrip()
    if tail and not tail[0].isspace():
        return True
    return bool(stripped) and bool(_SPACE.search(stripped))


def _outer_signs(target: str) -> tuple[str, str]:
    """The signs before the first and behind the last word of `target`; none if it has no word."""
    words = word_spans(target, articles=True)
    return (target[: words[0][1]], target[words[-1][2] :]) if words else ("", "")
