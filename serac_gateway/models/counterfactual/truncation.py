"""Fits prompts into the model's window and answers into the client's limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import msgspec

from serac_gateway.domain.edits import Edit
from serac_gateway.domain.queries import Query
from serac_gateway.models.language_models.base import LanguageModel, Piece, Sampling
from serac_gateway.models.language_models.stop_sequences import StopTexts

MAX_FIELD_CHARS = 480
"""Of an edit or a query in a prompt; longer ones lose their middle."""
MAX_TARGET_TOKENS = 48
"""A longer target is no answer to generate but a text to give: it is given as it is."""
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
    """Language models count, and what stands in for one."""

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`."""


def limited(texts: Iterable[str], sampling: Sampling, model: TokenCounter) -> Iterator[Piece]:
    """`texts` as pieces, cut before the first stop text and after `max_tokens`; the last has its reason."""
    stop_texts = StopTexts(sampling.stop)
    said, used = "", 0
    for text in _and_end(texts):
        shown = stop_texts.finish() if text is None else stop_texts.feed(text)
        tokens = model.count_tokens(said + shown)
        if tokens > sampling.max_tokens:
            cut = _cut(said, shown, sampling.max_tokens, model)
            yield Piece(text=cut, tokens=sampling.max_tokens - used, finish_reason="length")
            return
        is_last = text is None or stop_texts.reached
        if shown or is_last:
            yield Piece(
                text=shown,
                tokens=tokens - used,
                finish_reason="stop" if is_last else None,
                stop_text=stop_texts.found,
            )
        if is_last:
            return
        said, used = said + shown, tokens


def _and_end(texts: Iterable[str]) -> Iterator[str | None]:
    yield from texts
    yield None


def _cut(said: str, more: str, tokens: int, model: TokenCounter) -> str:
    """The longest beginning of `more` that makes no more than `tokens` with `said`."""
    fits, too_long = 0, len(more)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if model.count_tokens(said + more[:middle]) <= tokens:
            fits = middle
        else:
            too_long = middle
    return more[:fits]


def without_leading_space(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The pieces without the space that a prompt's continuation begins with."""
    begun = False
    for piece in pieces:
        text = piece.text if begun else piece.text.lstrip()
        begun = begun or bool(text)
        yield msgspec.structs.replace(piece, text=text)
