"""What a request for an answer is, whichever API it came by, and how its answer is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import MALFORMED, Bypass

MAX_TOKENS = 1_000_000
"""More than any context window; a larger number is not one that was meant."""
MAX_STOP_TEXTS = 16
SEEDS = 2**31
"""Generators take 32 bits at most, OpenAI's clients 64 with a sign."""

FieldsT = TypeVar("FieldsT", bound=msgspec.Struct)
TokenLimit = Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)]
Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
StopTexts = Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_STOP_TEXTS)]


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What of a request matters for answering it."""

    endpoint: Endpoint
    model: str
    stream: bool = False
    include_usage: bool = False
    """The stream ends with a chunk that reports usage; of chat and text completions alone."""
    choices: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    """None: not given."""
    top_p: float = 1.0
    seed: int | None = None
    """In 0..SEEDS-1: another seed is reduced to this range."""
    stop: tuple[str, ...] = ()
    echoed: dict[str, Any] = {}
    """Members of the request that its answer repeats; of /responses alone."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One finished answer."""

    text: str
    finish_reason: str
    """"stop" or "length"."""
    stop_text: str | None = None
    """The text that ended it, if it was one."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts of a request."""

    prompt_tokens: int
    completion_tokens: int


class AnswerHead(msgspec.Struct, frozen=True, kw_only=True):
    """What all objects and events of one answer have in common."""

    token: str
    """Unique to the answer; its ids are made of it."""
    created: int
    """Unix time in seconds."""
    system_fingerprint: str


class AnswerWriter(ABC):
    """Writes one answer in the shape of its API: whole, or as server-sent events. Used once.

    Of a stream: `opened`, `text` as often as there is some, and `closed` for each choice, then `ended`.
    """

    events_written = 0
    """How many events a stream has so far, in an API that numbers them."""

    @abstractmethod
    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, object]:
        """The answer as one object."""

    @abstractmethod
    def opened(self, choice: int, prompt_tokens: int) -> bytes:
        """The events before a choice's text."""

    @abstractmethod
    def text(self, choice: int, text: str) -> bytes:
        """The events with a part of a choice's text."""

    @abstractmethod
    def closed(self, choice: int, finish_reason: str, stop_text: str | None) -> bytes:
        """The events after a choice's text."""

    @abstractmethod
    def ended(self, usage: Usage) -> bytes:
        """The events that end the stream."""


def stream_event(data: object, name: str | None = None) -> bytes:
    """One server-sent event whose data is `data` as JSON."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + msgspec.json.encode(data) + b"\n\n"


def read_fields(body: Mapping[str, Any], kind: type[FieldsT]) -> FieldsT | Bypass:
    """The members of `body` that `kind` has; null counts as not given."""
    given = {name: body[name] for name in kind.__struct_fields__ if body.get(name) is not None}
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError:
        return MALFORMED


def unsupported_reason(body: Mapping[str, Any], unanswerable: Mapping[str, Sequence[str]]) -> Bypass | None:
    """The first reason whose parameters ask for something; null, false, 0 and what is empty do not."""
    for reason, names in unanswerable.items():
        if any(body.get(name) for name in names):
            return Bypass(reason=reason)
    return None


def normalized_seed(seed: int | None) -> int | None:
    """`seed` in 0..SEEDS-1."""
    return None if seed is None else seed % SEEDS
