"""Turns the tokens that a model picks into the pieces of an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from serac_gateway.errors import InvalidRequestError
from serac_gateway.models.language_models.base import GeneratedToken, Piece, TokenLogprob
from serac_gateway.models.language_models.stop_sequences import StopTexts

_ANCHOR = "a"
"""Decoded before a token, since some tokenizers drop the space at the beginning of a text."""


def pieces(
    tokens: Iterable[GeneratedToken],
    *,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    limit: int,
    stop: Sequence[str],
    cancelled: Callable[[], bool],
) -> Iterator[Piece]:
    """The answer's pieces, for at most `limit` tokens; see `LanguageModel.generate`.

    `tokens` ends when the model ends its answer. The decoder starts with the end of the prompt, because
    some tokenizers need it to decide whether the answer begins with a space.
    """
    decoder = DecodeStream(ids=list(prompt_ids[-8:]), skip_special_tokens=True)
    stop_texts = StopTexts(stop)
    logprobs = _Logprobs(tokenizer)
    generated = unreported = released_chars = 0
    for token in tokens:
        if cancelled():
            return
        generated += 1
        unreported += 1
        # None: a character of several tokens is incomplete. One that stays incomplete is dropped.
        text = decoder.step(tokenizer, token.token_id) or ""
        logprobs.add(token, text)
        released = stop_texts.feed(text)
        released_chars += len(released)
        if stop_texts.reached:
            yield Piece(
                text=released,
                tokens=unreported,
                finish_reason="stop",
                stop_text=stop_texts.matched,
                logprobs=logprobs.take(released_chars),
            )
            return
        if generated == limit:
            break
        if released:
            yield Piece(text=released, tokens=unreported, logprobs=logprobs.take(released_chars))
            unreported = 0
    else:
        released = ""
    if cancelled():
        return
    rest = stop_texts.finish()
    yield Piece(
        text=released + rest,
        tokens=unreported,
        finish_reason="length" if generated == limit else "stop",
        logprobs=logprobs.take(released_chars + len(rest)),
    )


class _Logprobs:
    """Log probabilities of the tokens whose text was not released yet."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._anchor = tokenizer.encode(_ANCHOR, add_special_tokens=False).ids
        self._anchor_text = tokenizer.decode(self._anchor)
        self._waiting: list[tuple[int, TokenLogprob]] = []
        """With the place in the answer's text where each token's begins."""
        self._added_chars = 0

    def add(self, token: GeneratedToken, text: str) -> None:
        """Note a token that has added `text` to the answer."""
        if token.logprob is not None:
            likeliest = tuple(
                TokenLogprob(text=self._text_of(token_id), logprob=logprob)
                for token_id, logprob in token.likeliest
            )
            noted = TokenLogprob(
                text=self._text_of(token.token_id), logprob=token.logprob, likeliest=likeliest
            )  # fmt: skip
            self._waiting.append((self._added_chars, noted))
        self._added_chars += len(text)

    def take(self, released_chars: int) -> tuple[TokenLogprob, ...]:
        """Those that begin in the first `released_chars` of the answer and were not taken before."""
        taken = tuple(noted for begins, noted in self._waiting if begins < released_chars)
        del self._waiting[: len(taken)]
        return taken

    def _text_of(self, token_id: int) -> str:
        text = self._tokenizer.decode([*self._anchor, token_id], skip_special_tokens=False)
        return text.removeprefix(self._anchor_text)


def answer_room(prompt_tokens: int, context_tokens: int) -> int:
    """Tokens left for the answer.

    Raises:
        InvalidRequestError: There is none.
    """
    room = context_tokens - prompt_tokens
    if room < 1:
        raise InvalidRequestError(
            f"the model's maximum context length is {context_tokens} tokens, and the prompt has"
            f" {prompt_tokens}, which leaves no room for an answer; shorten it to {context_tokens - 1} tokens"
            " or fewer",
            field="prompt",
            details={"value": prompt_tokens, "limit": context_tokens - 1},
        )
    return room
