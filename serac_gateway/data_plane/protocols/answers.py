"""Joins the pieces that a model generates to an answer of its API: one object, or a stream of events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import msgspec

from serac_gateway.data_plane.protocols.base import AnswerWriter, Choice, CompletionRequest, Usage
from serac_gateway.models.language_models.base import Piece, TokenLogprob


class ChoicePiece(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of one choice of an answer."""

    choice: int
    """Index of the choice; choices are generated in order, each as a whole."""
    piece: Piece
    prompt_tokens: int
    """Number of tokens of the request that the model read."""


async def whole_answer(
    writer: AnswerWriter, request: CompletionRequest, pieces: AsyncIterator[ChoicePiece]
) -> dict[str, object]:
    """The answer as one object."""
    texts = [""] * request.choices
    logprobs: list[tuple[TokenLogprob, ...]] = [()] * request.choices
    last = [Piece(text="", tokens=0, finish_reason="stop")] * request.choices
    usage = Usage(prompt_tokens=0, completion_tokens=0)
    async for generated in pieces:
        texts[generated.choice] += generated.piece.text
        logprobs[generated.choice] += generated.piece.logprobs
        if generated.piece.finish_reason is not None:
            last[generated.choice] = generated.piece
        usage = _added(usage, generated)
    choices = [
        Choice(
            text=text,
            finish_reason=piece.finish_reason or "stop",
            stop_text=piece.stop_text,
            logprobs=tokens or None,
        )
        for text, piece, tokens in zip(texts, last, logprobs, strict=True)
    ]
    return writer.whole(choices, usage)


async def _nothing() -> None:
    pass


async def event_stream(
    writer: AnswerWriter,
    pieces: AsyncIterator[ChoicePiece],
    *,
    before_end: Callable[[], Awaitable[None]] = _nothing,
) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events; the first come with the first piece.

    `before_end` is awaited after the last piece, before the client can know that the answer is complete.
    """
    usage = Usage(prompt_tokens=0, completion_tokens=0)
    opened = -1
    async for generated in pieces:
        choice, piece = generated.choice, generated.piece
        usage = _added(usage, generated)
        events = b""
        if choice != opened:
            opened = choice
            events += writer.opened(choice, generated.prompt_tokens)
        if piece.text or piece.logprobs:
            events += writer.text(choice, piece.text, piece.logprobs)
        if piece.finish_reason is not None:
            events += writer.closed(choice, piece.finish_reason, piece.stop_text)
        if events:
            yield events
    await before_end()
    yield writer.ended(usage)


def _added(usage: Usage, generated: ChoicePiece) -> Usage:
    return Usage(
        prompt_tokens=max(usage.prompt_tokens, generated.prompt_tokens),
        completion_tokens=usage.completion_tokens + generated.piece.tokens,
    )
