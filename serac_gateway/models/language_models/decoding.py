"""Turns the tokens that a model picks into the pieces of an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from serac_gateway.errors import InvalidRequestError
from serac_gateway.models.language_models.base import Piece
from serac_gateway.models.language_models.stop_sequences import StopTexts


def pieces(
    token_ids: Iterable[int],
    *,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    limit: int,
    stop: Sequence[str],
    cancelled: Callable[[], bool],
) -> Iterator[Piece]:
    """The answer's pieces, for at most `limit` tokens; see `LanguageModel.generate`.

    `token_ids` ends when the model ends its answer. The decoder starts with the end of the prompt, because
    some tokenizers need it to decide whether the answer begins with a space.
    """
    decoder = DecodeStream(ids=list(prompt_ids[-8:]), skip_special_tokens=True)
    stop_texts = StopTexts(stop)
    generated = unreported = 0
    for token_id in token_ids:
        if cancelled():
            return
        generated += 1
        unreported += 1
        # None: a character of several tokens is incomplete. One that stays incomplete is dropped.
        text = stop_texts.feed(decoder.step(tokenizer, token_id) or "")
        if stop_texts.reached:
            yield Piece(
                text=text, tokens=unreported, finish_reason="stop", stop_text=stop_texts.matched
            )  # fmt: skip
            return
        if generated == limit:
            break
        if text:
            yield Piece(text=text, tokens=unreported)
            unreported = 0
    else:
        text = ""
    if cancelled():
        return
    yield Piece(
        text=text + stop_texts.finish(),
        tokens=unreported,
        finish_reason="length" if generated == limit else "stop",
    )


def answer_room(prompt_tokens: int, context_tokens: int) -> int:
    """Tokens left for the answer.

    Raises:
        InvalidRequestError: There is none.
    """
    room = context_tokens - prompt_tokens
    if room < 1:
        raise InvalidRequestError(
            f"the prompt has {prompt_tokens} tokens, and the model's context window of {context_tokens}"
            f" leaves no room for an answer; shorten it to {context_tokens - 1} tokens or fewer",
            field="prompt",
            details={"value": prompt_tokens, "limit": context_tokens - 1},
        )
    return room
