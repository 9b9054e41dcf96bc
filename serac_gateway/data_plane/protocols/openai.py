"""What OpenAI's APIs share: errors; and what chat and text completions share: choices, parameters. Pure."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from serac_gateway.auth.api_keys import redacted
from serac_gateway.data_plane.protocols.base import (
    MAX_CHOICES,
    STRUCTURED_OUTPUT,
    AnswerHead,
    AnswerWriter,
    ApiProtocol,
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
from serac_gateway.domain.queries import Bypass
from serac_gateway.errors import GatewayError
from serac_gateway.models.language_models.base import TokenLogprob

TOO_MANY_CHOICES = Bypass(reason="too many choices")
STREAM_END = b"data: [DONE]\n\n"


class OpenAIProtocol(ApiProtocol):
    """An API of OpenAI's: its errors."""

    def error_body(self, error: GatewayError, request_id: str) -> dict[str, object]:
        """See `ApiProtocol.error_body`."""
        return {"error": error_members(error)}

    def error_event(self, error: GatewayError, request_id: str, number: int) -> bytes:
        """See `ApiProtocol.error_event`."""
        return stream_event(self.error_body(error, request_id))


def error_members(error: GatewayError) -> dict[str, object]:
    """OpenAI's error object, without API keys in its message."""
    return {
        "message": redacted(error.message),
        "type": error.openai_type,
        "param": error.field,
        "code": error.code,
    }


class ChoicesWriter(AnswerWriter):
    """Writes an answer that has choices. A subclass names the objects and writes a choice's text."""

    object_name: str
    chunk_name: str
    id_prefix: str

    def __init__(self, head: AnswerHead, request: CompletionRequest) -> None:
        self._head = head
        self._request = request
        self._chars: dict[int, int] = {}
        """Of each choice's tokens so far, in a stream with log probabilities."""

    @abstractmethod
    def content(self, text: str) -> dict[str, object]:
        """The members of a whole choice that contain its text."""

    @abstractmethod
    def logprobs(self, tokens: Sequence[TokenLogprob], offset: int) -> dict[str, object]:
        """The member of a choice for its tokens, the first of which begins `offset` characters into it."""

    @abstractmethod
    def delta(self, text: str | None) -> dict[str, object]:
        """The members of a chunk's choice that contain more of its text; None: the last chunk's."""

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, object]:
        """See `AnswerWriter.whole`."""
        return {
            **self._named(self.object_name),
            "choices": [
                {
                    "index": index,
                    **self.content(choice.text),
                    "logprobs": None if choice.logprobs is None else self.logprobs(choice.logprobs, 0),
                    "finish_reason": choice.finish_reason,
                }
                for index, choice in enumerate(choices)
            ],
            "usage": usage_of(usage),
        }

    def opened(self, choice: int, prompt_tokens: int) -> bytes:
        """Nothing."""
        return b""

    def text(self, choice: int, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes:
        """One chunk."""
        if not logprobs:
            return self.chunk(choice, self.delta(text))
        offset = self._chars.get(choice, 0)
        self._chars[choice] = offset + sum(len(token.text) for token in logprobs)
        return self.chunk(choice, self.delta(text), logprobs=self.logprobs(logprobs, offset))

    def closed(self, choice: int, finish_reason: str, stop_text: str | None) -> bytes:
        """One chunk with the finish reason."""
        return self.chunk(choice, self.delta(None), finish_reason)

    def ended(self, usage: Usage) -> bytes:
        """The chunk without choices that reports usage, if the request wants it, and [DONE]."""
        last = {**self._named(self.chunk_name), "choices": [], "usage": usage_of(usage)}
        return (stream_event(last) if self._request.include_usage else b"") + STREAM_END

    def chunk(
        self,
        index: int,
        delta: Mapping[str, object],
        finish_reason: str | None = None,
        *,
        logprobs: Mapping[str, object] | None = None,
    ) -> bytes:
        """One chunk of one choice."""
        choice = {"index": index, **delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return stream_event({**self._named(self.chunk_name), "choices": [choice]})

    def _named(self, kind: str) -> dict[str, object]:
        return {
            "id": f"{self.id_prefix}{self._head.token}",
            "object": kind,
            "created": self._head.created,
            "model": self._request.model,
            "system_fingerprint": self._head.system_fingerprint,
        }


def usage_of(usage: Usage) -> dict[str, int]:
    """Usage as chat and text completions report it."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def parse_choices_request(endpoint: Endpoint, body: Mapping[str, Any]) -> CompletionRequest | Bypass:
    """`ApiProtocol.parse_request` of a chat or text completion that names a model."""
    if (unsupported := unsupported_reason(body, _UNSUPPORTED)) is not None:
        return unsupported
    if (form := _form_reason(body)) is not None:
        return Bypass(reason=form)
    fields = read_fields(body, _Fields)
    if isinstance(fields, Bypass):
        return fields
    if fields.n > MAX_CHOICES:
        return TOO_MANY_CHOICES
    stop = (fields.stop,) if isinstance(fields.stop, str) else fields.stop
    return CompletionRequest(
        endpoint=endpoint,
        model=body["model"],
        stream=fields.stream,
        include_usage=fields.stream and fields.stream_options.include_usage is True,
        choices=fields.n,
        max_tokens=fields.max_completion_tokens or fields.max_tokens,
        temperature=fields.temperature,
        top_p=fields.top_p,
        seed=normalized_seed(fields.seed),
        stop=tuple(text for text in stop if text),
    )


_UNSUPPORTED: dict[str, tuple[str, ...]] = {
    STRUCTURED_OUTPUT: (
        "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "grammar",
        "json_schema",
    ),
    "log probabilities": ("logprobs", "top_logprobs", "prompt_logprobs"),
    "logit bias": ("logit_bias",),
    "penalties": ("frequency_penalty", "presence_penalty"),
    "audio": ("audio",),
    "web search": ("web_search_options",),
    "insertion": ("suffix",),
    "echo": ("echo",),
}  # fmt: skip
"""Reason -> the parameters that are refused with it."""


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


HONOURED = frozenset({
    "model", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens", "temperature", "top_p",
    "seed", "stop",
})  # fmt: skip
"""See `ApiProtocol.honoured`: those of chat and text completions."""


class _Fields(msgspec.Struct, frozen=True):
    """The parameters that are honoured, in the ranges that OpenAI allows."""

    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    n: Annotated[int, msgspec.Meta(ge=1)] = 1
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    seed: Seed | None = None
    stop: str | StopTexts = ()


def _form_reason(body: Mapping[str, Any]) -> str | None:
    """Tools that the model may use leave room for a plain answer; tools that it must use do not."""
    if any(body.get(name) not in (None, "auto", "none") for name in ("tool_choice", "function_call")):
        return "tools required"
    form = body.get("response_format")
    if form is not None and not (isinstance(form, Mapping) and form.get("type") == "text"):
        return STRUCTURED_OUTPUT
    if body.get("modalities") not in (None, ["text"]):
        return "audio"
    return None
