"""From a model's pieces to an answer in its API's shape: one object, or a stream of events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from serac_gateway.data_plane.protocols.base import AnswerWriter, Choice, CompletionRequest, Usage
from serac_gateway.models.language_models.base import Piece


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of one choice of an answer."""

    choice: int
    piece: Piece
    prompt_tokens: int
    """What the model read of the request."""


async def whole_answer(
    writer: AnswerWriter, request: CompletionRequest, parts: AsyncIterator[Part]
) -> dict[str, object]:
    """The answer as one object."""
    texts = [""] * request.choices
    last = [Piece(text="", tokens=0, finish_reason="stop")] * request.choices
    usage = Usage(prompt_tokens=0, completion_tokens=0)
    async for part in parts:
        texts[part.choice] += part.piece.text
        if part.piece.finish_reason is not None:
            last[part.choice] = part.piece
        usage = _added(usage, part)
    choices = [
        Choice(text=text, finish_reason=piece.finish_reason or "stop", stop_text=piece.stop_text)
        for text, piece in zip(texts, last, strict=True)
    ]
    return writer.whole(choices, usage)


async def event_stream(writer: AnswerWriter, parts: AsyncIterator[Part]) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events; the first are given when the model has produced something."""
    usage = Usage(prompt_tokens=0, completion_tokens=0)
    opened = -1
    async for part in parts:
        usage = _added(usage, part)
        events = b""
        if part.choice != opened:
            opened = part.choice
            events += writer.opened(part.choice, part.prompt_tokens)
        if part.piece.text:
            events += writer.text(part.choice, part.piece.text)
        if part.piece.finish_reason is not None:
            events += writer.closed(part.choice, part.piece.finish_reason, part.piece.stop_text)
        if events:
            yield events
    yield writer.ended(usage)


def _added(usage: Usage, part: Part) -> Usage:
    return Usage(
        prompt_tokens=part.prompt_tokens, completion_tokens=usage.completion_tokens + part.piece.tokens
    )
