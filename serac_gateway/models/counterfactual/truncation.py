"""Fits prompts into the model's window and answers into the client's limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from serac_gateway.domain.edits import Edit
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.guardrail import AnswerGuard
from serac_gateway.models.language_models.base import LanguageModel, Piece, Sampling
from serac_gateway.models.language_models.stop_sequences import StopTexts

MAX_FIELD_CHARS = 480
"""Of a field of an edit or a query in a prompt; longer fields lose their middle."""
MAX_TARGET_TOKENS = 48
"""A longer target is not generated but given as it is."""
_MIN_FIELD_CHARS = 30
_MAX_PROMPT_TOKENS = 440
"""Longer fields are shortened to it: a prompt within one attention window (512) is read in 0.2 s."""
_ANSWER_TOKENS = MAX_TARGET_TOKENS + 32


PromptMaker = Callable[..., str]
"""`make_prompt(edit, query, field_chars=…)`: fields longer than that lose their middle."""


def fitting_prompt(make_prompt: PromptMaker, edit: Edit, query: Query, model: LanguageModel) -> str:
    """`make_prompt(edit, query, field_chars=…)` with fields as long as the model's window allows."""
    limit = min(_MAX_PROMPT_TOKENS, model.context_tokens - _ANSWER_TOKENS)
    field_chars = MAX_FIELD_CHARS
    while True:
        prompt = make_prompt(edit, query, field_chars=field_chars)
        if field_chars <= _MIN_FIELD_CHARS or model.count_tokens(prompt) <= limit:
            return prompt
        field_chars //= 2


class TokenCounter(Protocol):
    """A model that counts tokens."""

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`."""


class LimitedAnswer:
    """Turns a model's text into the pieces that the client gets. Used for one answer.

    The text passes `guard`, and is cut before the client's first stop text and after its `max_tokens`. This
    is the only place where the client's stop texts apply to it: what the model generates is not yet what the
    client sees.
    """

    def __init__(self, sampling: Sampling, counter: TokenCounter, guard: AnswerGuard | None = None) -> None:
        """Cut at the limits of `sampling`; without `guard` all text may pass."""
        self._stop_texts = StopTexts(sampling.stop)
        self._max_tokens = sampling.max_tokens
        self._counter = counter
        self._guard = guard
        self._text = ""
        """The text of all pieces so far, and its tokens."""
        self._tokens = 0
        self._cut = False
        """Whether the last piece was given."""

    @property
    def ended(self) -> bool:
        """Whether the answer is complete: more text would be ignored."""
        return self._cut or (self._guard is not None and self._guard.ended)

    def feed(self, text: str) -> list[Piece]:
        """The pieces that are ready now that the model has generated `text`: none or one."""
        return self._limited(text if self._guard is None else self._guard.feed(text))

    def finish(self) -> list[Piece]:
        """The pieces up to the last, which has a finish_reason; none if that one was given."""
        pieces = [] if self._cut or self._guard is None else self._limited(self._guard.finish())
        return pieces if self._cut else [*pieces, self._piece(self._stop_texts.finish(), is_last=True)]

    def _limited(self, text: str) -> list[Piece]:
        if self._cut:
            return []
        passed = self._stop_texts.feed(text)
        reached = self._stop_texts.reached
        return [self._piece(passed, is_last=reached)] if passed or reached else []

    def _piece(self, text: str, *, is_last: bool) -> Piece:
        tokens = self._counter.count_tokens(self._text + text)
        if tokens > self._max_tokens:
            self._cut = True
            return Piece(
                text=self._beginning(text), tokens=self._max_tokens - self._tokens, finish_reason="length"
            )
        piece = Piece(
            text=text,
            tokens=tokens - self._tokens,
            finish_reason="stop" if is_last else None,
            stop_text=self._stop_texts.matched,
        )
        self._text, self._tokens, self._cut = self._text + text, tokens, is_last
        return piece

    def _beginning(self, text: str) -> str:
        """The longest beginning of `text` that keeps the whole answer within the limit of tokens."""
        fits, too_long = 0, len(text)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if self._counter.count_tokens(self._text + text[:middle]) <= self._max_tokens:
                fits = middle
            else:
                too_long = middle
        return text[:fits]
