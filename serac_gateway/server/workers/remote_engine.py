"""What a worker asks the model process: each part of the data plane that has models or a store, from afar."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

import aiohttp
import msgspec
from typing_extensions import override

from serac_gateway.auth.authenticator import Authenticating, key_headers
from serac_gateway.auth.principals import ANYONE, Principal
from serac_gateway.data_plane.engine import Answers, Continuing, Deciding, NeedsDecision
from serac_gateway.data_plane.plan import RequestPlan
from serac_gateway.data_plane.protocols.answers import ChoicePiece
from serac_gateway.data_plane.protocols.base import CompletionRequest
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.data_plane.response_memory import may_continue
from serac_gateway.domain.edits import Edit
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.headers import Headers
from serac_gateway.domain.queries import Query
from serac_gateway.errors import GatewayError, ModelUnavailableError
from serac_gateway.observability.request_record import FinishedRequest
from serac_gateway.server.workers.namespace_bitmap import NamespaceBitmap
from serac_gateway.server.workers.rpc_messages import (
    TOKEN_HEADER,
    AnswerCall,
    AuthenticateCall,
    ContinueCall,
    DecideCall,
    Failure,
    FinishedCall,
    NoteCall,
    WorkerSettings,
)
from serac_gateway.server.workers.rpc_server import frames

log = logging.getLogger(__name__)

ReplyT = TypeVar("ReplyT")

_BROKEN = (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError, msgspec.DecodeError)
_LARGE_BYTES = 1_048_576
_MAX_WAITING = 10_000
_LONGEST_BATCH = 256
_IN_FLIGHT_EVERY_S = 1.0


class ModelProcess:
    """The connection to the model process. Construct it in a running event loop."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Nothing is sent yet."""
        self._session = aiohttp.ClientSession(
            "http://model-process",
            connector=aiohttp.UnixConnector(settings.socket_path, limit=0, keepalive_timeout=30.0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={TOKEN_HEADER: settings.token},
        )

    async def call(self, path: str, message: msgspec.Struct, kind: type[ReplyT]) -> ReplyT:
        """The reply to a call.

        Raises:
            GatewayError: What the model process raised.
            ModelUnavailableError: It does not answer.
        """
        try:
            # PUT: aiohttp repeats it on another connection where an idle one has just been closed.
            async with self._session.put(path, data=_payload(message)) as response:
                reply = await response.read()
            if response.status != 200:
                raise msgspec.msgpack.decode(reply, type=Failure).error()
            return msgspec.msgpack.decode(reply, type=kind)
        except _BROKEN as exc:
            raise _gone(exc) from exc

    async def answer(self, call: AnswerCall) -> AsyncGenerator[ChoicePiece, None]:
        """The parts of an answer as they are generated. Raises as `call` does."""
        try:
            async with self._session.put("/answer", data=_payload(call)) as response:
                async for frame in frames(response.content.readexactly):
                    if frame.failure is not None:
                        raise frame.failure.error()
                    if frame.part is not None:
                        yield frame.part
        except _BROKEN as exc:
            raise _gone(exc) from exc

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        await self._session.close()


class RemoteDeciding(Deciding):
    """Has the model process decide, where the table of interest says that there is anything to decide."""

    def __init__(self, models: ModelProcess, interest: NamespaceBitmap) -> None:
        self._models = models
        self._interest = interest

    @override
    def needs_decision(self, namespace: str) -> NeedsDecision:
        return self._interest.needs_decision(namespace)

    @override
    async def decide(self, namespace: str, endpoint: Endpoint, body: RequestBody, sender: str) -> RequestPlan:
        call = DecideCall(namespace=namespace, endpoint=endpoint, body=body.data, sender=sender)
        return await self._models.call("/decide", call, RequestPlan)


class RemoteAnswers(Answers):
    """Has the model process answer."""

    def __init__(self, models: ModelProcess) -> None:
        self._models = models

    @override
    async def parts(
        self,
        edit: Edit,
        query: Query,
        request: CompletionRequest,
        *,
        on_tokens: Callable[[int], None] = lambda count: None,
    ) -> AsyncGenerator[ChoicePiece, None]:
        call = AnswerCall(edit=edit, query=query, request=request)
        async with aclosing(self._models.answer(call)) as parts:
            async for part in parts:
                on_tokens(part.piece.tokens)
                yield part


class RemoteContinuing(Continuing):
    """The memory of answered responses is the model process's, so that any worker can go on from them."""

    def __init__(self, models: ModelProcess) -> None:
        self._models = models

    @override
    async def note(self, namespace: str, body: RequestBody, response_id: str, said: str) -> None:
        call = NoteCall(namespace=namespace, body=body.data, response_id=response_id, said=said)
        try:
            await self._models.call("/note", call, type(None))
        except GatewayError as error:
            log.warning("response %s cannot be gone on from: %s", response_id, error.message)

    @override
    async def continued(self, namespace: str, body: RequestBody) -> RequestBody:
        if not may_continue(body):
            return body
        try:
            call = ContinueCall(namespace=namespace, body=body.data)
            data = await self._models.call("/continue", call, bytes)
        except GatewayError as error:
            log.warning("a response goes on from what cannot be looked up: %s", error.message)
            return body
        return body if data == body.data else RequestBody(data)


class RemoteAuthenticator(Authenticating):
    """Has the model process check keys and count them against their rates, which are those of all workers."""

    def __init__(self, models: ModelProcess, *, required: bool) -> None:
        """With `required` off, who comes without a key may do everything."""
        self._models = models
        self._required = required

    @override
    async def authenticate(self, headers: Headers) -> Principal:
        presented = key_headers(headers)
        if not presented and not self._required:
            return ANYONE
        return await self._models.call("/authenticate", AuthenticateCall(headers=presented), Principal)


class FinishedReports:
    """Tells the model process of requests that have ended: at once, and together those that end meanwhile."""

    def __init__(self, models: ModelProcess, *, worker: str, in_flight: Callable[[], int]) -> None:
        """`in_flight` counts the requests that have not ended."""
        self._models = models
        self._worker = worker
        self._in_flight = in_flight
        self._told_in_flight = 0
        self._waiting: list[FinishedRequest] = []
        self._telling: asyncio.Task[None] | None = None
        self._ticking = asyncio.create_task(self._tick())

    def add(self, request: FinishedRequest) -> None:
        """Tell of a request. While the model process does not answer, what is beyond 10,000 is not told."""
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.append(request)
            self._start()

    async def close(self) -> None:
        """Tell what waits, and stop. Idempotent."""
        self._ticking.cancel()
        await asyncio.gather(self._ticking, return_exceptions=True)
        if self._telling is not None:
            await self._telling

    def _start(self) -> None:
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())

    async def _tick(self) -> None:
        """Long requests begin without another's end: their number is told now and then."""
        while True:
            await asyncio.sleep(_IN_FLIGHT_EVERY_S)
            if self._waiting or self._in_flight() != self._told_in_flight:
                self._start()

    async def _tell(self) -> None:
        while True:
            batch: Sequence[FinishedRequest] = self._waiting[:_LONGEST_BATCH]
            in_flight = self._in_flight()
            call = FinishedCall(worker=self._worker, requests=batch, in_flight=in_flight)
            try:
                await self._models.call("/finished", call, type(None))
            except GatewayError as error:
                log.warning("%d finished requests are not counted yet: %s", len(batch), error.message)
                return  # the next request, or the next second, tries again
            del self._waiting[: len(batch)]
            self._told_in_flight = in_flight
            if not self._waiting:
                return


def _payload(message: msgspec.Struct) -> bytes | aiohttp.BytesIOPayload:
    """What a call is sent as. A large bytes object aiohttp would write in one blocking piece, and warn."""
    data = msgspec.msgpack.encode(message)
    return data if len(data) < _LARGE_BYTES else aiohttp.BytesIOPayload(io.BytesIO(data))


def _gone(exc: BaseException) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"the model process does not answer: {type(exc).__name__}", details={"reason": "no model process"}
    )
