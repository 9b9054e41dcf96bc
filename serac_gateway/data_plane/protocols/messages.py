"""Anthropic's POST /v1/messages: what is understood of a request, and the message. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from serac_gateway.data_plane.protocols.base import (
    AnswerHead,
    AnswerWriter,
    Choice,
    CompletionRequest,
    StopTexts,
    TokenLimit,
    Usage,
    read_fields,
    stream_event,
    unsupported_reason,
)
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import MALFORMED, Bypass


class MessagesWriter(AnswerWriter):
    """Writes a message with one text block, and the events that build it up."""

    def __init__(self, head: AnswerHead, request: CompletionRequest) -> None:
        self._head = head
        self._request = request
        self._stop: dict[str, object] = {}

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, object]:
        """See `AnswerWriter.whole`."""
        (choice,) = choices
        stop = self._stop_of(choice.finish_reason, choice.stop_text)
        return self._message([{"type": "text", "text": choice.text, "citations": None}], stop, usage)

    def opened(self, choice: int, prompt_tokens: int) -> bytes:
        """message_start, content_block_start and a ping, as Anthropic sends one there."""
        nothing_yet = Usage(prompt_tokens=prompt_tokens, completion_tokens=0)
        message = self._message([], {"stop_reason": None, "stop_sequence": None}, nothing_yet)
        return (
            _event("message_start", message=message)
            + _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            + _event("ping")
        )

    def text(self, choice: int, text: str) -> bytes:
        """content_block_delta."""
        return _event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    def closed(self, choice: int, finish_reason: str, stop_text: str | None) -> bytes:
        """content_block_stop."""
        self._stop = self._stop_of(finish_reason, stop_text)
        return _event("content_block_stop", index=0)

    def ended(self, usage: Usage) -> bytes:
        """message_delta and message_stop."""
        return _event("message_delta", delta=self._stop, usage=_usage_of(usage)) + _event("message_stop")

    def _stop_of(self, finish_reason: str, stop_text: str | None) -> dict[str, object]:
        if finish_reason == "length":
            return {"stop_reason": "max_tokens", "stop_sequence": None}
        if stop_text in self._request.stop:
            return {"stop_reason": "stop_sequence", "stop_sequence": stop_text}
        return {"stop_reason": "end_turn", "stop_sequence": None}

    def _message(
        self, content: list[dict[str, object]], stop: Mapping[str, object], usage: Usage
    ) -> dict[str, object]:
        return {
            "id": f"msg_{self._head.token}",
            "type": "message",
            "role": "assistant",
            "model": self._request.model,
            "content": content,
            **stop,
            "usage": _usage_of(usage),
        }


def parse_messages_request(body: Mapping[str, Any]) -> CompletionRequest | Bypass:
    """What is understood of a request that has a model."""
    if (refused := unsupported_reason(body, _UNANSWERABLE)) is not None:
        return refused
    if (form := _form_reason(body)) is not None:
        return Bypass(reason=form)
    fields = read_fields(body, _Fields)
    if isinstance(fields, Bypass) or fields.max_tokens is None or not _is_system(body.get("system")):
        return MALFORMED
    return CompletionRequest(
        endpoint=Endpoint.MESSAGES,
        model=body["model"],
        stream=fields.stream,
        max_tokens=fields.max_tokens,
        temperature=fields.temperature,
        top_p=fields.top_p,
        stop=tuple(text for text in fields.stop_sequences if text),
    )


_UNANSWERABLE: dict[str, tuple[str, ...]] = {
    "container": ("container",),
    "structured output": ("output_format",),
}
"""Reason -> the parameters that ask for what cannot be done here."""


class _Fields(msgspec.Struct, frozen=True):
    """The parameters that are honoured, in the ranges that Anthropic allows."""

    stream: bool = False
    max_tokens: TokenLimit | None = None
    """Anthropic demands it."""
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    stop_sequences: StopTexts = ()


def _form_reason(body: Mapping[str, Any]) -> str | None:
    choice = body.get("tool_choice")
    if choice is not None and not (isinstance(choice, Mapping) and choice.get("type") in ("auto", "none")):
        return "tools required"
    output = body.get("output_config")  # its effort is a hint
    if isinstance(output, Mapping) and output.get("format"):
        return "structured output"
    thinking = body.get("thinking")  # adaptive: the model may think, and may not
    if isinstance(thinking, Mapping) and thinking.get("type") == "enabled":
        return "reasoning shown"
    return None


def _is_system(system: object) -> bool:
    return isinstance(system, str | None) or (
        isinstance(system, list) and all(isinstance(block, Mapping) for block in system)
    )


def _event(kind: str, **members: object) -> bytes:
    return stream_event({"type": kind, **members}, kind)


def _usage_of(usage: Usage) -> dict[str, object]:
    return {
        "input_tokens": usage.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": usage.completion_tokens,
    }
