"""OpenAI's chat.completion and text_completion: what is understood of a request, and the answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from serac_gateway.conversation import MALFORMED, Bypass

MAX_CHOICES = 8
"""A request for more choices is not answered here."""
MAX_STOP_TEXTS = 16
MAX_TOKENS = 1_000_000
"""More than any context window; a larger number is not one that was meant."""


SEEDS = 2**31
"""Generators take 32 bits at most, OpenAI's clients 64 with a sign."""
STREAM_END = b"data: [DONE]\n\n"


class Endpoint(StrEnum):
    """The two calls that can be answered here, by their path below /v1."""

    CHAT = "/chat/completions"
    COMPLETIONS = "/completions"


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What of a request matters for answering it."""

    endpoint: Endpoint
    model: str
    stream: bool = False
    include_usage: bool = False
    """The stream ends with a chunk that reports usage."""
    choices: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    """None: not given."""
    top_p: float = 1.0
    seed: int | None = None
    """In 0..SEEDS-1: a seed of another number is folded into that."""
    stop: tuple[str, ...] = ()


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One finished answer."""

    text: str
    finish_reason: str


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts of a request."""

    prompt_tokens: int
    completion_tokens: int

    def as_json(self) -> dict[str, int]:
        """As OpenAI reports it."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What all objects and chunks of one answer have in common."""

    endpoint: Endpoint
    id: str
    created: int
    """Unix time in seconds."""
    model: str
    """The request's own name for the model."""
    system_fingerprint: str

    def complete(self, choices: Sequence[Choice], usage: Usage) -> dict[str, object]:
        """The whole answer as one object."""
        chat = self.endpoint is Endpoint.CHAT
        return {
            **self._head("chat.completion" if chat else "text_completion"),
            "choices": [
                {
                    "index": index,
                    **(
                        {"message": {"role": "assistant", "content": choice.text, "refusal": None}}
                        if chat
                        else {"text": choice.text}
                    ),
                    "logprobs": None,
                    "finish_reason": choice.finish_reason,
                }
                for index, choice in enumerate(choices)
            ],
            "usage": usage.as_json(),
        }

    def first_chunk(self, index: int) -> dict[str, object] | None:
        """The chunk that opens a choice with its role; a text completion has none."""
        if self.endpoint is not Endpoint.CHAT:
            return None
        return self._chunk(index, {"delta": {"role": "assistant", "content": "", "refusal": None}}, None)

    def text_chunk(self, index: int, text: str) -> dict[str, object]:
        """A chunk with a part of a choice's text."""
        part = {"delta": {"content": text}} if self.endpoint is Endpoint.CHAT else {"text": text}
        return self._chunk(index, part, None)

    def last_chunk(self, index: int, finish_reason: str) -> dict[str, object]:
        """The chunk that ends a choice."""
        part: dict[str, object] = {"delta": {}} if self.endpoint is Endpoint.CHAT else {"text": ""}
        return self._chunk(index, part, finish_reason)

    def usage_chunk(self, usage: Usage) -> dict[str, object]:
        """The chunk without choices that ends a stream with `include_usage`."""
        return {**self._head(self._chunk_object), "choices": [], "usage": usage.as_json()}

    @property
    def _chunk_object(self) -> str:
        return "chat.completion.chunk" if self.endpoint is Endpoint.CHAT else "text_completion"

    def _chunk(self, index: int, part: Mapping[str, object], finish_reason: str | None) -> dict[str, object]:
        choice = {"index": index, **part, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head(self._chunk_object), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, object]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
        }


def stream_event(data: object) -> bytes:
    """One server-sent event whose data is `data` as JSON."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def completion_id(endpoint: Endpoint, token: str) -> str:
    """An id in OpenAI's form from a text that is unique to the answer."""
    return f"{'chatcmpl' if endpoint is Endpoint.CHAT else 'cmpl'}-{token}"


def parse_completion_request(endpoint: Endpoint, body: object) -> CompletionRequest | Bypass:
    """What we understand of a decoded request body, or why it cannot be answered here.

    Whatever would change the form of the answer and cannot be honoured is a `Bypass`, and so is what the
    upstream has to refuse in its own words. Hints that change no form (`user`, `store`, `top_k`, …) are
    ignored.
    """
    if not isinstance(body, Mapping) or not isinstance(body.get("model"), str):
        return MALFORMED
    for reason, names in _UNANSWERABLE.items():
        if any(_is_set(body.get(name)) for name in names):
            return Bypass(reason=reason)
    if (form := _tools_reason(body) or _form_reason(endpoint, body)) is not None:
        return Bypass(reason=form)
    try:
        fields = msgspec.convert({name: body[name] for name in _READ if body.get(name) is not None}, _Fields)
    except msgspec.ValidationError:
        return MALFORMED
    if fields.n > MAX_CHOICES:
        return Bypass(reason="too many choices")
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
        seed=None if fields.seed is None else fields.seed % SEEDS,
        stop=tuple(text for text in stop if text),
    )


_UNANSWERABLE: dict[str, tuple[str, ...]] = {
    "structured output": (
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
"""Reason -> the parameters that ask for what cannot be done here."""


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class _Fields(msgspec.Struct, frozen=True):
    """The parameters that are honoured, in the ranges that OpenAI allows."""

    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    n: Annotated[int, msgspec.Meta(ge=1)] = 1
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_STOP_TEXTS)] = ()


_READ = _Fields.__struct_fields__


def _is_set(value: object) -> bool:
    """Whether a parameter asks for anything: null, false, 0 and what is empty ask for nothing."""
    return bool(value)


def _tools_reason(body: Mapping[str, Any]) -> str | None:
    """Tools that the model may use leave room for a plain answer; tools that it must use do not."""
    if body.get("tool_choice") not in (None, "auto", "none"):
        return "tools required"
    if body.get("function_call") not in (None, "auto", "none"):
        return "tools required"
    return None


def _form_reason(endpoint: Endpoint, body: Mapping[str, Any]) -> str | None:
    form = body.get("response_format")
    if form is not None and not (isinstance(form, Mapping) and form.get("type") == "text"):
        return "structured output"
    if body.get("modalities") not in (None, ["text"]):
        return "audio"
    if endpoint is Endpoint.COMPLETIONS:
        if body.get("logprobs") is not None and body["logprobs"] is not False:  # 0: of the tokens taken
            return "log probabilities"
        if body.get("best_of") not in (None, body.get("n") or 1):
            return "too many choices"
    return None
