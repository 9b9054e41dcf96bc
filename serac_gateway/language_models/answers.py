"""From a model's pieces to OpenAI's answer: one object, or a stream of events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from serac_gateway.completions import STREAM_END, Choice, CompletionRequest, Envelope, Usage, stream_event
from serac_gateway.language_models.base import Piece


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of one choice of an answer."""

    choice: int
    piece: Piece
    prompt_tokens: int
    """What the model read of the request."""


async def whole_answer(
    envelope: Envelope, request: CompletionRequest, parts: AsyncIterator[Part]
) -> dict[str, object]:
    """The answer as one object."""
    texts = [""] * request.choices
    finish_reasons = ["stop"] * request.choices
    usage = Usage(prompt_tokens=0, completion_tokens=0)
    async for part in parts:
        texts[part.choice] += part.piece.text
        finish_reasons[part.choice] = part.piece.finish_reason or finish_reasons[part.choice]
        usage = _added(usage, part)
    choices = [
        Choice(text=text, finish_reason=reason) for text, reason in zip(texts, finish_reasons, strict=True)
    ]
    return envelope.complete(choices, usage)


async def event_stream(
    envelope: Envelope, request: CompletionRequest, parts: AsyncIterator[Part]
) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events; the first are given when the model has produced something."""
    usage = Usage(prompt_tokens=0, completion_tokens=0)
    opened = -1
    async for part in parts:
        usage = _added(usage, part)
        events = b""
        if part.choice != opened:
            opened = part.choice
            if (chunk := envelope.first_chunk(part.choice)) is not None:
                events += stream_event(chunk)
        if part.piece.text:
            events += stream_event(envelope.text_chunk(part.choice, part.piece.text))
        if part.piece.finish_reason is not None:
            events += stream_event(envelope.last_chunk(part.choice, part.piece.finish_reason))
        if events:
            yield events
    if request.include_usage:
        yield stream_event(envelope.usage_chunk(usage))
    yield STREAM_END


def _added(usage: Usage, part: Part) -> Usage:
    return Usage(
        prompt_tokens=part.prompt_tokens, completion_tokens=usage.completion_tokens + part.piece.tokens
    )
