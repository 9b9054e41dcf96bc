"""The messages between a worker and the model process, in MessagePack."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import msgspec

from serac_gateway.config.model import GatewayConfig
from serac_gateway.data_plane.protocols.answers import ChoicePiece
from serac_gateway.data_plane.protocols.body import BodyForm
from serac_gateway.domain.audiences import Caller
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.errors import GatewayError
from serac_gateway.observability.request_record import FinishedRequest
from serac_gateway.routing.guarded_values import GuardedValues

READY = b"ready\n"
"""The line that a worker writes to standard output when it serves."""
HOST_HEADER = "serac-worker-host"
"""Carries the Host header of a relayed request, which the relaying client writes anew."""
AUTHENTICATE_PATH = "/authenticate"
"""Takes an `AuthenticateCall`."""
ANSWER_PATH = "/answer"
"""Takes an `AnswerTask`; the reply is a stream of `AnswerFrame`s."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that a worker reads from standard input when it starts."""

    worker: str
    """Its name."""
    config: GatewayConfig
    upstream_url: str
    """Of the default upstream, also of the embedded one."""
    loop_guard: str
    """The mark that all workers share: see `LoopGuard`."""
    socket_path: str
    """The Unix socket of the model process."""
    bitmap_path: str
    """The file of the `NamespaceBitmap`."""
    token: str


class AuthenticateCall(msgspec.Struct, frozen=True, kw_only=True):
    """`Engine.authenticate`; the reply is a `Principal`."""

    headers: Sequence[tuple[bytes, bytes]]


class DecideCall(msgspec.Struct, frozen=True, kw_only=True):
    """`Engine.decide`; the reply is a `RequestPlan`."""

    namespace: str
    endpoint: Endpoint
    body: bytes
    form: BodyForm
    caller: Caller


class GuardedValuesCall(msgspec.Struct, frozen=True, kw_only=True):
    """`Engine.guarded_values`; the reply is a `GuardedValuesReply`."""

    namespace: str
    known_version: str | None


class GuardedValuesReply(msgspec.Struct, frozen=True, kw_only=True):
    """What replies are watched for."""

    changed: GuardedValues | None
    """None: the version that the call names is the current one."""


class RememberResponseCall(msgspec.Struct, frozen=True, kw_only=True):
    """`Engine.remember_response`; the reply is null."""

    namespace: str
    body: bytes
    response_id: str
    answer: str
    labels: dict[str, str]


class EarlierTurnsCall(msgspec.Struct, frozen=True, kw_only=True):
    """`Engine.with_earlier_turns`; the reply is the body."""

    namespace: str
    body: bytes
    labels: dict[str, str]


class RequestReport(msgspec.Struct, frozen=True, kw_only=True):
    """The requests that have ended in a worker, and the number of those that have not; the reply is null."""

    worker: str
    requests: Sequence[FinishedRequest]
    in_flight: int


class RemoteError(msgspec.Struct, frozen=True, kw_only=True):
    """A `GatewayError`, to be raised in the other process."""

    kind: str
    """The name of its class."""
    message: str
    field: str | None
    details: dict[str, Any]

    @classmethod
    def from_error(cls, error: GatewayError) -> RemoteError:
        """The message of `error`."""
        return cls(
            kind=type(error).__name__, message=error.message, field=error.field, details=dict(error.details)
        )

    def to_error(self) -> GatewayError:
        """The error to raise; of a class that this process does not have, a plain `GatewayError`."""
        kind = _KINDS.get(self.kind, GatewayError)
        return kind(self.message, field=self.field, details=self.details)


class AnswerFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of an answer, or its error. The last frame is empty, so that an end differs from a break."""

    piece: ChoicePiece | None = None
    error: RemoteError | None = None

    def encode(self) -> bytes:
        """The frame on the wire: its length in four bytes, big-endian, and its MessagePack."""
        data = msgspec.msgpack.encode(self)
        return len(data).to_bytes(4, "big") + data


async def read_frames(read_exactly: Callable[[int], Awaitable[bytes]]) -> AsyncIterator[AnswerFrame]:
    """The frames of an answer, without the last.

    Raises:
        asyncio.IncompleteReadError: The stream broke off before the last frame.
    """
    while True:
        length = int.from_bytes(await read_exactly(4), "big")
        frame = msgspec.msgpack.decode(await read_exactly(length), type=AnswerFrame)
        if frame.piece is None and frame.error is None:
            return
        yield frame


def _error_kinds(kind: type[GatewayError]) -> Iterator[tuple[str, type[GatewayError]]]:
    yield kind.__name__, kind
    for narrower in kind.__subclasses__():
        yield from _error_kinds(narrower)


_KINDS = dict(_error_kinds(GatewayError))
