"""The seam to the APIs of the data plane: what a request and an answer are, independent of their API.

All that is known about one API stands in its file: chat_completions.py, completions.py, responses.py and
messages.py; endpoints.py has the table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec

from serac_gateway.data_plane.protocols.parameters import (
    MAX_STOP_TEXTS,
    MAX_TOKENS,
    SEEDS,
    lenient_parameters,
)
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import MALFORMED, Bypass, Query
from serac_gateway.errors import GatewayError
from serac_gateway.models.language_models.base import TokenLogprob

MAX_CHOICES = 128
"""A request for more choices is not answered here: as many as OpenAI allows."""
STRUCTURED_OUTPUT = "structured output"
"""The reason of a demand that the answer be JSON or obey a grammar."""
FieldsT = TypeVar("FieldsT", bound=msgspec.Struct)
Members = dict[str, msgspec.Raw]
"""A request body split into its members, whose bytes are kept as the client wrote them."""
TokenLimit = Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)]
Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
StopTexts = Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_STOP_TEXTS)]


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a request that the gateway's own answer depends on."""

    endpoint: Endpoint
    model: str
    stream: bool = False
    include_usage: bool = False
    """The stream ends with a chunk that reports usage; only chat and text completions have it."""
    choices: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    """0..2; None: not given."""
    top_p: float = 1.0
    seed: int | None = None
    """0..SEEDS-1; other seeds are reduced to this range."""
    stop: tuple[str, ...] = ()
    echoed: dict[str, Any] = {}
    """Members of the request that its answer repeats; only /responses has them."""
    marked_refusal: bool = False
    """The answer is a refusal where another form was demanded: it is marked, so that no client parses it."""


class AnswerForm(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer of the gateway's own would be given to a request."""

    request: CompletionRequest
    unsupported_reason: str | None = None
    """Why a plain text is not what the request demands, in a word or two; None: it is."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One finished answer."""

    text: str
    finish_reason: str
    """"stop", "length", or "content_filter" for a refusal in the place of the base model's answer."""
    stop_text: str | None = None
    """The stop text that ended it; None if it ended otherwise."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    """Of its tokens; None: not computed."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts of a request."""

    prompt_tokens: int
    completion_tokens: int


class AnswerHead(msgspec.Struct, frozen=True, kw_only=True):
    """Values that all objects and events of one answer share."""

    token: str
    """Unique to the answer; all its ids contain it."""
    created: int
    """Unix time in seconds."""
    system_fingerprint: str


class AnswerWriter(ABC):
    """Writes one answer in the shape of its API: whole, or as server-sent events. Used once.

    A stream is `opened`, any number of `text` and `closed` for each choice, then `ended`.
    """

    events_written = 0
    """Number of events written to the stream so far, in an API that numbers them; else 0."""

    @abstractmethod
    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, object]:
        """The answer as one object."""

    @abstractmethod
    def opened(self, choice: int, prompt_tokens: int) -> bytes:
        """The events before a choice's text."""

    @abstractmethod
    def text(self, choice: int, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes:
        """The events with a part of a choice's text, and with its tokens' log probabilities if computed."""

    @abstractmethod
    def closed(self, choice: int, finish_reason: str, stop_text: str | None) -> bytes:
        """The events after a choice's text."""

    @abstractmethod
    def ended(self, usage: Usage) -> bytes:
        """The events that end the stream."""


class ApiProtocol(ABC):
    """One API: how its requests are read, and how its answers and errors are written. Stateless, pure."""

    endpoint: ClassVar[Endpoint]
    max_temperature: ClassVar[float] = 2.0

    @abstractmethod
    def query(self, body: object) -> Query | Bypass:
        """The query of a decoded request body."""

    @property
    @abstractmethod
    def honoured(self) -> Set[str]:
        """The names of the parameters that an answer of the gateway's own honours."""

    def answer_form(self, body: Mapping[str, Any], path_model: str | None = None) -> AnswerForm:
        """How to answer a decoded request body, however it is written: see `lenient_parameters`.

        A parameter that would change the form of the answer and cannot be honoured is reported; hints that
        change no form (`user`, `store`, `top_k`, …) are ignored.
        """
        given = self._lenient(body, path_model)
        plain = {name: given[name] for name in self.honoured if name in given}
        plain["n"] = min(plain.get("n", 1), MAX_CHOICES)
        request = self._parse(plain)
        assert isinstance(request, CompletionRequest)  # every parameter left is in its range
        demanded = self._parse(given)
        reason = demanded.reason if isinstance(demanded, Bypass) else None
        return AnswerForm(request=request, unsupported_reason=reason)

    def _lenient(self, body: Mapping[str, Any], path_model: str | None) -> dict[str, Any]:
        """The members of `body` with every parameter in its range, so that `_parse` takes it."""
        return lenient_parameters(body, path_model=path_model, max_temperature=self.max_temperature)

    def parse_request(self, body: object) -> CompletionRequest | Bypass:
        """The parameters of a decoded request body in the ranges of its API, or why it cannot be answered.

        For a server that is the request's last: see `answer_form` for the gateway.
        """
        if not isinstance(body, Mapping) or not isinstance(body.get("model"), str):
            return MALFORMED
        return self._parse(body)

    @abstractmethod
    def _parse(self, body: Mapping[str, Any]) -> CompletionRequest | Bypass:
        """`parse_request` of a body that names a model."""

    def prompt_count(self, body: Mapping[str, Any]) -> int:
        """How many prompts a decoded body has, each of which gets its choices."""
        return 1

    def prompt_queries(self, body: Mapping[str, Any]) -> Sequence[Query | Bypass]:
        """The query of each prompt of a decoded body that has several; else ()."""
        return ()

    def with_prompts(self, members: Members, places: Sequence[int]) -> bytes:
        """A whole request of the prompts at `places` alone, not streamed.

        Called only where `prompt_queries` has several; in other APIs the only prompt is the request itself.
        """
        return msgspec.json.encode(members)

    @abstractmethod
    def add_note(self, members: Members, note: str) -> None:
        """Put `note` before the client's own words in a request that `query` and `parse_request` accepted.

        Changes `members` in place; members without the note keep their bytes and order.
        """

    def add_notes(self, members: Members, notes: Mapping[int, str]) -> None:  # noqa: B027 - most have none
        """Put each of `notes` before the prompt at its place, in a request of several prompts.

        Called only where `prompt_queries` has several.
        """

    @abstractmethod
    def answer_writer(self, head: AnswerHead, request: CompletionRequest) -> AnswerWriter:
        """A new writer of the answer to `request`."""

    @abstractmethod
    def error_body(self, error: GatewayError, request_id: str) -> dict[str, object]:
        """`error` as the body of a response."""

    @abstractmethod
    def error_event(self, error: GatewayError, request_id: str, number: int) -> bytes:
        """`error` as the last event of a stream, its event `number` if the API numbers them."""

    def reply_headers(self, request_id: str) -> list[tuple[bytes, bytes]]:
        """The headers that clients of this API expect in a reply of the gateway's own."""
        return []


def stream_event(data: object, name: str | None = None) -> bytes:
    """One server-sent event with `data` as JSON, named `name`."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + msgspec.json.encode(data) + b"\n\n"


def with_note(content: msgspec.Raw | None, note: str) -> msgspec.Raw:
    """Instructions, a text or a list of text blocks, with `note` at their end; null or None: `note` alone."""
    decoded = None if content is None else msgspec.json.decode(content)
    if isinstance(decoded, list):
        return raw([*decoded, {"type": "text", "text": note}])
    return raw(f"{decoded}\n\n{note}" if decoded else note)


def raw(value: object) -> msgspec.Raw:
    """`value` as encoded JSON."""
    return msgspec.Raw(msgspec.json.encode(value))


def read_fields(body: Mapping[str, Any], kind: type[FieldsT]) -> FieldsT | Bypass:
    """The members of `body` that `kind` has; null counts as not given."""
    given = {name: body[name] for name in kind.__struct_fields__ if body.get(name) is not None}
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError:
        return MALFORMED


def unsupported_reason(body: Mapping[str, Any], unsupported: Mapping[str, Sequence[str]]) -> Bypass | None:
    """The first reason in `unsupported` of which a parameter is set; null, false, 0 and empty are not set."""
    for reason, names in unsupported.items():
        if any(body.get(name) for name in names):
            return Bypass(reason=reason)
    return None


def normalized_seed(seed: int | None) -> int | None:
    """`seed` modulo SEEDS, so in 0..SEEDS-1."""
    return None if seed is None else seed % SEEDS
