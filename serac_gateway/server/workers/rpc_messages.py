"""What a worker and the model process say to each other, as MessagePack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from serac_gateway.config.model import GatewayConfig
from serac_gateway.data_plane.protocols.answers import ChoicePiece
from serac_gateway.data_plane.protocols.base import CompletionRequest
from serac_gateway.domain.edits import Edit
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import Query
from serac_gateway.errors import GatewayError
from serac_gateway.observability.request_record import FinishedRequest

READY = b"ready\n"
"""What a worker writes to standard output when it serves."""
TOKEN_HEADER = "serac-worker-token"
"""Carries the secret by which the model process knows a worker's calls from requests that are relayed."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told when it starts."""

    worker: str
    """Its name."""
    config: GatewayConfig
    upstream_url: str
    """Of the default upstream, also of the embedded one."""
    loop_guard: str
    """What all workers sign requests with: see `LoopGuard`."""
    socket_path: str
    """Where the model process listens."""
    bitmap_path: str
    """The file of the `NamespaceBitmap`."""
    token: str


class DecideCall(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a `RequestPlan`."""

    namespace: str
    endpoint: Endpoint
    body: bytes
    sender: str


class AnswerCall(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for an answer: `Frame`s follow."""

    edit: Edit
    query: Query
    request: CompletionRequest


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An error, to be raised on the other side."""

    kind: str
    message: str
    field: str | None
    details: dict[str, Any]

    @classmethod
    def of(cls, error: GatewayError) -> Failure:
        """As it is sent."""
        return cls(
            kind=type(error).__name__, message=error.message, field=error.field, details=dict(error.details)
        )

    def error(self) -> GatewayError:
        """As it is raised."""
        kind = _KINDS.get(self.kind, GatewayError)
        return kind(self.message, field=self.field, details=self.details)


class Frame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of an answer; the last is empty, so that an end is known from a break."""

    part: ChoicePiece | None = None
    failure: Failure | None = None


class AuthenticateCall(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for the `Principal` of a request with these headers."""

    headers: Sequence[tuple[bytes, bytes]]


class ContinueCall(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a body of /v1/responses with the turns that it goes on from."""

    namespace: str
    body: bytes


class NoteCall(msgspec.Struct, frozen=True, kw_only=True):
    """Tells of a response that was answered: see `Continuing.note`."""

    namespace: str
    body: bytes
    response_id: str
    said: str


class FinishedCall(msgspec.Struct, frozen=True, kw_only=True):
    """Tells of requests that have ended, and how many have not."""

    worker: str
    requests: Sequence[FinishedRequest]
    in_flight: int


def _error_kinds(kind: type[GatewayError]) -> Iterator[tuple[str, type[GatewayError]]]:
    yield kind.__name__, kind
    for narrower in kind.__subclasses__():
        yield from _error_kinds(narrower)


_KINDS = dict(_error_kinds(GatewayError))
