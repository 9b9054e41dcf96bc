"""Anthropic's POST /v1/messages. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Annotated, Any, ClassVar

import msgspec

from serac_gateway.auth.api_keys import redacted
from serac_gateway.data_plane.protocols.base import (
    STRUCTURED_OUTPUT,
    AnswerHead,
    AnswerWriter,
    ApiProtocol,
    Choice,
    CompletionRequest,
    Members,
    StopTexts,
    TokenLimit,
    Usage,
    read_fields,
    stream_event,
    unsupported_reason,
    with_note,
)
from serac_gateway.data_plane.protocols.parameters import MAX_TOKENS
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import (
    MALFORMED,
    Bypass,
    Query,
    query_of_turns,
    read_turns,
    with_instructions,
)
from serac_gateway.errors import GatewayError
from serac_gateway.models.language_models.base import TokenLogprob

VERSION_HEADER = b"anthropic-version"
"""A request header that every client of Anthropic's sends, to all paths."""

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""By HTTP status; others are api_error."""


class MessagesProtocol(ApiProtocol):
    """See `ApiProtocol`."""

    endpoint: ClassVar[Endpoint] = Endpoint.MESSAGES
    max_temperature: ClassVar[float] = 1.0

    def query(self, body: object) -> Query | Bypass:
        """See `ApiProtocol.query`."""
        if not isinstance(body, Mapping):
            return MALFORMED
        turns = read_turns(body.get("messages"))
        if isinstance(turns, Bypass):
            return turns
        return query_of_turns(with_instructions(turns, body.get("system")))

    @property
    def honoured(self) -> Set[str]:
        """See `ApiProtocol.honoured`."""
        return frozenset({"model", "stream", "max_tokens", "temperature", "top_p", "stop_sequences"})

    def _lenient(self, body: Mapping[str, Any], path_model: str | None) -> dict[str, Any]:
        """Anthropic demands a limit of tokens; other servers of its API do not."""
        given = super()._lenient(body, path_model)
        given.setdefault("max_tokens", MAX_TOKENS)
        if not _is_system(given.get("system")):
            del given["system"]
        return given

    def _parse(self, body: Mapping[str, Any]) -> CompletionRequest | Bypass:
        if (unsupported := unsupported_reason(body, _UNSUPPORTED)) is not None:
            return unsupported
        if (form := _form_reason(body)) is not None:
            return Bypass(reason=form)
        fields = read_fields(body, _Fields)
        if isinstance(fields, Bypass) or fields.max_tokens is None or not _is_system(body.get("system")):
            return MALFORMED
        return CompletionRequest(
            endpoint=self.endpoint,
            model=body["model"],
            stream=fields.stream,
            max_tokens=fields.max_tokens,
            temperature=fields.temperature,
            top_p=fields.top_p,
            stop=tuple(text for text in fields.stop_sequences if text),
        )

    def add_note(self, members: Members, note: str) -> None:
        """At the end of `system`."""
        members["system"] = with_note(members.get("system"), note)

    def answer_writer(self, head: AnswerHead, request: CompletionRequest) -> AnswerWriter:
        """See `ApiProtocol.answer_writer`."""
        return MessagesWriter(head, request)

    def error_body(self, error: GatewayError, request_id: str) -> dict[str, object]:
        """See `ApiProtocol.error_body`."""
        return {
            "type": "error",
            "error": {
                "type": _ERROR_TYPES.get(error.status, "api_error"),
                "message": redacted(error.message),
            },
            "request_id": request_id,
        }

    def error_event(self, error: GatewayError, request_id: str, number: int) -> bytes:
        """See `ApiProtocol.error_event`."""
        return stream_event(self.error_body(error, request_id), "error")

    def reply_headers(self, request_id: str) -> list[tuple[bytes, bytes]]:
        """`request-id`, by which Anthropic's clients identify a request."""
        return [(b"request-id", request_id.encode())]


class MessagesWriter(AnswerWriter):
    """Writes a message with one text block, whole or as events."""

    def __init__(self, head: AnswerHead, request: CompletionRequest) -> None:
        self._head = head
        self._request = request
        self._stop: dict[str, object] = {}

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, object]:
        """See `AnswerWriter.whole`."""
        (choice,) = choices
        stop = self._stop_of(choice.finish_reason, choice.stop_text)
        return self._message([{"type": "text", "text": choice.text}], stop, usage)

    def opened(self, choice: int, prompt_tokens: int) -> bytes:
        """message_start, content_block_start and a ping, in Anthropic's order."""
        nothing_yet = Usage(prompt_tokens=prompt_tokens, completion_tokens=0)
        message = self._message([], {"stop_reason": None, "stop_sequence": None}, nothing_yet)
        return (
            _event("message_start", message=message)
            + _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            + _event("ping")
        )

    def text(self, choice: int, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes:
        """content_block_delta, without log probabilities."""
        return _event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    def closed(self, choice: int, finish_reason: str, stop_text: str | None) -> bytes:
        """content_block_stop."""
        self._stop = self._stop_of(finish_reason, stop_text)
        return _event("content_block_stop", index=0)

    def ended(self, usage: Usage) -> bytes:
        """message_delta and message_stop."""
        return _event("message_delta", delta=self._stop, usage=_usage_of(usage)) + _event("message_stop")

    def _stop_of(self, finish_reason: str, stop_text: str | None) -> dict[str, object]:
        if self._request.marked_refusal or finish_reason == "content_filter":
            return {"stop_reason": "refusal", "stop_sequence": None}
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


_UNSUPPORTED: dict[str, tuple[str, ...]] = {
    "container": ("container",),
    STRUCTURED_OUTPUT: ("output_format",),
}
"""Reason -> the parameters that are refused with it."""


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
        return STRUCTURED_OUTPUT
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
