"""OpenAI's POST /v1/responses. Pure.

Responses are not stored: one of the gateway's own cannot be fetched by its id, and has `"store": false`.
data_plane/response_memory.py lets a client continue from it with `previous_response_id`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Annotated, Any, ClassVar

import msgspec

from serac_gateway.data_plane.lenient_json import strict_value
from serac_gateway.data_plane.protocols.base import (
    STRUCTURED_OUTPUT,
    AnswerForm,
    AnswerHead,
    AnswerWriter,
    Choice,
    CompletionRequest,
    Members,
    Seed,
    StopTexts,
    TokenLimit,
    Usage,
    normalized_seed,
    raw,
    read_fields,
    stream_event,
    unsupported_reason,
    with_note,
)
from serac_gateway.data_plane.protocols.openai import OpenAIProtocol, error_members
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import (
    MALFORMED,
    Bypass,
    Query,
    Turn,
    Turns,
    query_of_turns,
    read_turns,
    with_instructions,
)
from serac_gateway.errors import GatewayError
from serac_gateway.models.language_models.base import TokenLogprob

PREVIOUS_RESPONSE = "previous_response_id"
_PROMPT_TEMPLATE = Bypass(reason="prompt template", unreadable=True)
"""The text stands with the upstream."""


class ResponsesProtocol(OpenAIProtocol):
    """See `ApiProtocol`."""

    endpoint: ClassVar[Endpoint] = Endpoint.RESPONSES

    def query(self, body: object) -> Query | Bypass:
        """See `ApiProtocol.query`."""
        if isinstance(body, Mapping) and body.get("prompt") is not None:
            return _PROMPT_TEMPLATE
        turns = turns_of_response_request(body)
        if isinstance(turns, Bypass):
            return turns
        given = body.get("instructions") if isinstance(body, Mapping) else None
        return query_of_turns(with_instructions(turns, given))

    @property
    def honoured(self) -> Set[str]:
        """See `ApiProtocol.honoured`; and the parameters that an answer repeats."""
        return _HONOURED

    def answer_form(self, body: Mapping[str, Any], path_model: str | None = None) -> AnswerForm:
        """See `ApiProtocol.answer_form`."""
        form = super().answer_form(body, path_model)
        given = self._lenient(body, path_model)
        echoed = {name: strict_value(given[name]) for name in _ECHOED_DEFAULTS if name in given}
        return msgspec.structs.replace(form, request=msgspec.structs.replace(form.request, echoed=echoed))

    def _lenient(self, body: Mapping[str, Any], path_model: str | None) -> dict[str, Any]:
        given = super()._lenient(body, path_model)
        if not isinstance(given.get("instructions"), str):
            given.pop("instructions", None)
        return given

    def _parse(self, body: Mapping[str, Any]) -> CompletionRequest | Bypass:
        if (unsupported := unsupported_reason(body, _UNSUPPORTED)) is not None:
            return unsupported
        if (form := _form_reason(body)) is not None:
            return Bypass(reason=form)
        fields = read_fields(body, _Fields)
        if isinstance(fields, Bypass) or not isinstance(body.get("instructions"), str | None):
            return MALFORMED
        stop = (fields.stop,) if isinstance(fields.stop, str) else fields.stop
        return CompletionRequest(
            endpoint=self.endpoint,
            model=body["model"],
            stream=fields.stream,
            max_tokens=fields.max_output_tokens,
            temperature=fields.temperature,
            top_p=fields.top_p,
            seed=normalized_seed(fields.seed),
            stop=tuple(text for text in stop if text),
            echoed={name: body[name] for name in _ECHOED_DEFAULTS if body.get(name) is not None},
        )

    def add_note(self, members: Members, note: str) -> None:
        """At the end of `instructions`."""
        members["instructions"] = with_note(members.get("instructions"), note)

    def answer_writer(self, head: AnswerHead, request: CompletionRequest) -> AnswerWriter:
        """See `ApiProtocol.answer_writer`."""
        return ResponsesWriter(head, request)

    def error_event(self, error: GatewayError, request_id: str, number: int) -> bytes:
        """See `ApiProtocol.error_event`.

        OpenAI documents the event with the error's members flat, and sends them under `error`, where its
        client reads them: this has both.
        """
        flat = {name: value for name, value in error_members(error).items() if name != "type"}
        return stream_event(
            {"type": "error", "sequence_number": number, **flat, **self.error_body(error, request_id)},
            "error",
        )


def turns_of_response_request(body: object) -> Turns | Bypass:
    """The turns in the input of a decoded request body."""
    if not isinstance(body, Mapping):
        return MALFORMED
    more_upstream = body.get(PREVIOUS_RESPONSE) is not None or body.get("conversation") is not None
    items = body.get("input")
    if isinstance(items, str):
        return Turns(turns=[Turn(role="user", content=items)], more_upstream=more_upstream)
    return read_turns(items, more_upstream=more_upstream)


class EarlierResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response that a later request can continue from."""

    previous: msgspec.Raw | None
    """The encoded id of the response before it, which only the upstream has; None: it is the first."""
    items: list[msgspec.Raw]
    """The input of its request."""
    answer: str


def earlier_response(members: Members, answer: str) -> EarlierResponse | None:
    """The response `answer` to the request with these `members`; None: the client wants it not stored.

    Raises:
        KeyError: The request has no input.
        msgspec.ValidationError: The input is neither a text nor a list.
    """
    if "store" in members and msgspec.json.decode(members["store"]) is False:
        return None
    return EarlierResponse(
        previous=members.get(PREVIOUS_RESPONSE), items=_input_items(members), answer=answer
    )


def previous_response_id(members: Members) -> object:
    """The decoded id of the response that a request continues from; None: of none."""
    return msgspec.json.decode(members.get(PREVIOUS_RESPONSE, b"null"))


def continued_request(members: Members, earlier: EarlierResponse) -> Members:
    """A request with the turns of `earlier` before its own; its other members keep their bytes and order.

    Raises:
        KeyError: The request has no input.
        msgspec.ValidationError: The input is neither a text nor a list.
    """
    answer = raw({"role": "assistant", "content": earlier.answer})
    continued = {**members, "input": raw([*earlier.items, answer, *_input_items(members)])}
    if earlier.previous is None:
        del continued[PREVIOUS_RESPONSE]
    else:
        continued[PREVIOUS_RESPONSE] = earlier.previous
    return continued


def _input_items(members: Members) -> list[msgspec.Raw]:
    items = msgspec.json.decode(members["input"], type=str | list[msgspec.Raw])
    return [raw({"role": "user", "content": items})] if isinstance(items, str) else items


class ResponsesWriter(AnswerWriter):
    """Writes a response with one message, whole or as events."""

    def __init__(self, head: AnswerHead, request: CompletionRequest) -> None:
        self._head = head
        self._request = request
        self.text_written = ""
        """The answer's text so far."""
        self._ending = ("in_progress", "stop")

    @property
    def response_id(self) -> str:
        """The response's."""
        return f"resp_{self._head.token}"

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, object]:
        """See `AnswerWriter.whole`."""
        (choice,) = choices
        self.text_written = choice.text
        status = _status(choice.finish_reason)
        self._ending = (status, choice.finish_reason)
        return self._response(status, [self._message(status, choice.text)], usage)

    def opened(self, choice: int, prompt_tokens: int) -> bytes:
        """response.created to content_part.added."""
        return (
            self._event("response.created", response=self._response("in_progress", []))
            + self._event("response.in_progress", response=self._response("in_progress", []))
            + self._event("response.output_item.added", output_index=0, item=self._message("in_progress"))
            + self._event("response.content_part.added", **self._place(), part=self._part(""))
        )

    def text(self, choice: int, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes:
        """output_text.delta, without log probabilities."""
        self.text_written += text
        if self._request.marked_refusal:
            return self._event("response.refusal.delta", **self._place(), delta=text)
        return self._event("response.output_text.delta", **self._place(), delta=text, logprobs=[])

    def closed(self, choice: int, finish_reason: str, stop_text: str | None) -> bytes:
        """output_text.done to output_item.done."""
        status = _status(finish_reason)
        self._ending = (status, finish_reason)
        text = self.text_written
        done = (
            self._event("response.refusal.done", **self._place(), refusal=text)
            if self._request.marked_refusal
            else self._event("response.output_text.done", **self._place(), text=text, logprobs=[])
        )
        return (
            done
            + self._event("response.content_part.done", **self._place(), part=self._part(text))
            + self._event("response.output_item.done", output_index=0, item=self._message(status, text))
        )

    def ended(self, usage: Usage) -> bytes:
        """response.completed, or response.incomplete when the tokens were spent."""
        status, _ = self._ending
        response = self._response(status, [self._message(status, self.text_written)], usage)
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

    def _part(self, text: str) -> dict[str, object]:
        if self._request.marked_refusal:
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _message(self, status: str, text: str | None = None) -> dict[str, object]:
        content = [] if text is None else [self._part(text)]
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
        is_filtered = self._ending[1] == "content_filter"
        reason = {"reason": "content_filter" if is_filtered else "max_output_tokens"}
        incomplete = reason if status == "incomplete" else None
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
            **_ECHOED_DEFAULTS,
            **self._request.echoed,
        }


_ECHOED_DEFAULTS: dict[str, object] = {
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
"""The members of a request that its response repeats -> their value if the request has none."""


_UNSUPPORTED: dict[str, tuple[str, ...]] = {
    "background": ("background",),
    "prompt template": ("prompt",),
    "log probabilities": ("top_logprobs",),
    "moderation": ("moderation",),
    STRUCTURED_OUTPUT: ("guided_json", "structured_outputs"),
}
"""Reason -> the parameters that are refused with it."""


_HONOURED = frozenset({"model", "stream", "max_output_tokens", "temperature", "top_p", "seed", "stop"})


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
            return STRUCTURED_OUTPUT
    included = body.get("include")
    if isinstance(included, Sequence) and "message.output_text.logprobs" in included:
        return "log probabilities"
    reasoning = body.get("reasoning")  # its effort is a hint, as `reasoning_effort` in a chat is
    if isinstance(reasoning, Mapping) and (reasoning.get("summary") or reasoning.get("generate_summary")):
        return "reasoning shown"
    return None


def _status(finish_reason: str) -> str:
    return "completed" if finish_reason == "stop" else "incomplete"


def _usage_of(usage: Usage) -> dict[str, object]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
