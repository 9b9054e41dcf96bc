"""OpenAI's POST /v1/responses: what is understood of a request, and the response. Pure.

Nothing is stored: a response of ours cannot be fetched by its id, and says `"store": false`. How a client
goes on from it with `previous_response_id` stands in data_plane/response_memory.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from serac_gateway.data_plane.protocols.base import (
    AnswerHead,
    AnswerWriter,
    Choice,
    CompletionRequest,
    Seed,
    StopTexts,
    TokenLimit,
    Usage,
    normalized_seed,
    read_fields,
    stream_event,
    unsupported_reason,
)
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import MALFORMED, Bypass


class ResponsesWriter(AnswerWriter):
    """Writes a response object with one message, and the events that build it up."""

    def __init__(self, head: AnswerHead, request: CompletionRequest) -> None:
        self._head = head
        self._request = request
        self.said = ""
        """The answer, as far as it was written."""
        self._ending = ("in_progress", "stop")

    @property
    def response_id(self) -> str:
        """The response's."""
        return f"resp_{self._head.token}"

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, object]:
        """See `AnswerWriter.whole`."""
        (choice,) = choices
        self.said = choice.text
        status = _status(choice.finish_reason)
        return self._response(status, [self._message(status, choice.text)], usage)

    def opened(self, choice: int, prompt_tokens: int) -> bytes:
        """response.created to content_part.added."""
        return (
            self._event("response.created", response=self._response("in_progress", []))
            + self._event("response.in_progress", response=self._response("in_progress", []))
            + self._event("response.output_item.added", output_index=0, item=self._message("in_progress"))
            + self._event("response.content_part.added", **self._place(), part=_output_text(""))
        )

    def text(self, choice: int, text: str) -> bytes:
        """output_text.delta."""
        self.said += text
        return self._event("response.output_text.delta", **self._place(), delta=text, logprobs=[])

    def closed(self, choice: int, finish_reason: str, stop_text: str | None) -> bytes:
        """output_text.done to output_item.done."""
        status = _status(finish_reason)
        self._ending = (status, finish_reason)
        return (
            self._event("response.output_text.done", **self._place(), text=self.said, logprobs=[])
            + self._event("response.content_part.done", **self._place(), part=_output_text(self.said))
            + self._event("response.output_item.done", output_index=0, item=self._message(status, self.said))
        )

    def ended(self, usage: Usage) -> bytes:
        """response.completed, or response.incomplete when the tokens were spent."""
        status, _ = self._ending
        response = self._response(status, [self._message(status, self.said)], usage)
        return self._event(f"response.{status}", response=response)

    def _event(self, kind: str, **members: object) -> bytes:
        event = stream_event({"type": kind, "sequence_number": self.events_written, **members}, kind)
        self.events_written += 1
        return event

    def _place(self) -> dict[str, object]:
        return {"item_id": self._message_id, "output_index": 0, "content_index": 0}

    @property
    def _message_id(self) -> str:
        return f"msg_{self._head.token}"

    def _message(self, status: str, text: str | None = None) -> dict[str, object]:
        content = [] if text is None else [_output_text(text)]
        return {
            "id": self._message_id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _response(
        self, status: str, output: list[dict[str, object]], usage: Usage | None = None
    ) -> dict[str, object]:
        incomplete = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self.response_id,
            "object": "response",
            "created_at": self._head.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": incomplete,
            "max_output_tokens": self._request.max_tokens,
            "model": self._request.model,
            "output": output,
            "store": False,
            "temperature": self._request.temperature,
            "top_p": self._request.top_p,
            "usage": None if usage is None else _usage_of(usage),
            **_TOLD_BACK,
            **self._request.echoed,
        }


_TOLD_BACK: dict[str, object] = {
    "instructions": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "truncation": "disabled",
    "user": None,
}
"""What a response repeats of its request, with what it says where the request is silent."""


def parse_responses_request(body: Mapping[str, Any]) -> CompletionRequest | Bypass:
    """What is understood of a request that has a model."""
    if (refused := unsupported_reason(body, _UNANSWERABLE)) is not None:
        return refused
    if (form := _form_reason(body)) is not None:
        return Bypass(reason=form)
    fields = read_fields(body, _Fields)
    if isinstance(fields, Bypass) or not isinstance(body.get("instructions"), str | None):
        return MALFORMED
    stop = (fields.stop,) if isinstance(fields.stop, str) else fields.stop
    return CompletionRequest(
        endpoint=Endpoint.RESPONSES,
        model=body["model"],
        stream=fields.stream,
        max_tokens=fields.max_output_tokens,
        temperature=fields.temperature,
        top_p=fields.top_p,
        seed=normalized_seed(fields.seed),
        stop=tuple(text for text in stop if text),
        echoed={name: body[name] for name in _TOLD_BACK if body.get(name) is not None},
    )


_UNANSWERABLE: dict[str, tuple[str, ...]] = {
    "background": ("background",),
    "prompt template": ("prompt",),
    "log probabilities": ("top_logprobs",),
    "moderation": ("moderation",),
    "structured output": ("guided_json", "structured_outputs"),
}
"""Reason -> the parameters that ask for what cannot be done here."""


class _Fields(msgspec.Struct, frozen=True):
    """The parameters that are honoured, in the ranges that OpenAI allows; seed and stop are vLLM's."""

    stream: bool = False
    max_output_tokens: TokenLimit | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    seed: Seed | None = None
    stop: str | StopTexts = ()


def _form_reason(body: Mapping[str, Any]) -> str | None:
    choice = body.get("tool_choice")
    if choice not in (None, "auto", "none") and not (
        isinstance(choice, Mapping) and choice.get("type") == "allowed_tools" and choice.get("mode") == "auto"
    ):
        return "tools required"
    text = body.get("text")
    if text is not None:
        form = text.get("format") if isinstance(text, Mapping) else text
        if form is not None and not (isinstance(form, Mapping) and form.get("type") == "text"):
            return "structured output"
    included = body.get("include")
    if isinstance(included, Sequence) and "message.output_text.logprobs" in included:
        return "log probabilities"
    reasoning = body.get("reasoning")  # its effort is a hint, as `reasoning_effort` in a chat is
    if isinstance(reasoning, Mapping) and (reasoning.get("summary") or reasoning.get("generate_summary")):
        return "reasoning shown"
    return None


def _status(finish_reason: str) -> str:
    return "incomplete" if finish_reason == "length" else "completed"


def _output_text(text: str) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage_of(usage: Usage) -> dict[str, object]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
