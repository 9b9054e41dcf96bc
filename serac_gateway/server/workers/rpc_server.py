"""What the model process does for its workers: a small ASGI application beside its own."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing
from typing import TypeVar

import msgspec
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Receive, Scope, Send

from serac_gateway.auth.principals import Principal
from serac_gateway.data_plane.engine import Answers
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.plan import RequestPlan
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.errors import GatewayError, InvalidRequestError, ModelUnavailableError
from serac_gateway.server.listener import Asgi
from serac_gateway.server.workers.rpc_messages import (
    TOKEN_HEADER,
    AnswerCall,
    AuthenticateCall,
    ContinueCall,
    DecideCall,
    Failure,
    FinishedCall,
    Frame,
    NoteCall,
)

log = logging.getLogger(__name__)

MessageT = TypeVar("MessageT")

_HEADER = TOKEN_HEADER.encode()
_WHOLE = 1 << 40
"""Workers keep to the limits on bodies; this reads what they send to its end."""
_STATUS_FAILED = 500


class WorkerCalls:
    """Answers the calls of workers, and gives every other request to `app`. Belongs to one event loop."""

    def __init__(
        self,
        app: Asgi,
        *,
        token: str,
        lease: Callable[[], AbstractContextManager[DataPlane]],
        on_finished: Callable[[FinishedCall], None],
    ) -> None:
        """Only calls with `token` are answered, with the parts of the data plane that `lease` gives.

        `on_finished` must not fail.
        """
        self._app = app
        self._token = token.encode()
        self._lease = lease
        self._on_finished = on_finished
        self._calls: Mapping[str, Callable[[DataPlane, bytes], Awaitable[object]]] = {
            "/decide": _decide,
            "/authenticate": _authenticate,
            "/continue": _continue,
            "/note": _note,
            "/finished": self._finished,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] == ScopeType.HTTP:
            presented = dict(scope["headers"]).get(_HEADER)
            if presented is not None and secrets.compare_digest(presented, self._token):
                await self._answer_call(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _answer_call(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        async with exchange:
            body = await exchange.read_body(_WHOLE)
            assert isinstance(body, bytes)
            path: str = scope["path"]
            try:
                with self._lease() as plane:
                    if path == "/answer":
                        await _answer(exchange, plane.answers, _read(body, AnswerCall))
                        return
                    reply = msgspec.msgpack.encode(await self._calls[path](plane, body))
                status = 200
            except GatewayError as error:
                status, reply = _STATUS_FAILED, msgspec.msgpack.encode(Failure.of(error))
            except Exception:
                log.exception("the worker's call %s failed", path)
                failed = ModelUnavailableError("the model process failed; its log says why")
                status, reply = _STATUS_FAILED, msgspec.msgpack.encode(Failure.of(failed))
            await exchange.respond(status, [], reply)

    async def _finished(self, plane: DataPlane, body: bytes) -> None:
        self._on_finished(_read(body, FinishedCall))


async def _decide(plane: DataPlane, body: bytes) -> RequestPlan:
    call = _read(body, DecideCall)
    plan = await plane.deciding.decide(call.namespace, call.endpoint, RequestBody(call.body), call.sender)
    decision = plan.decision
    if decision is None or len(decision.candidates) < 2:
        return plan
    # Of interest to whom a finished request is reported is the nearest alone, and all weigh 20 KB.
    decision = msgspec.structs.replace(decision, candidates=decision.candidates[:1])
    return msgspec.structs.replace(plan, decision=decision)


async def _authenticate(plane: DataPlane, body: bytes) -> Principal:
    return await plane.authenticator.authenticate(_read(body, AuthenticateCall).headers)


async def _continue(plane: DataPlane, body: bytes) -> bytes:
    call = _read(body, ContinueCall)
    return (await plane.continuing.continued(call.namespace, RequestBody(call.body))).data


async def _note(plane: DataPlane, body: bytes) -> None:
    call = _read(body, NoteCall)
    await plane.continuing.note(call.namespace, RequestBody(call.body), call.response_id, call.said)


async def _answer(exchange: Exchange, answers: Answers, call: AnswerCall) -> None:
    await exchange.start(200, [])
    try:
        async with aclosing(answers.parts(call.edit, call.query, call.request)) as parts:
            async for part in parts:
                await exchange.write(framed(Frame(part=part)))
        last = Frame()
    except GatewayError as error:
        last = Frame(failure=Failure.of(error))
    except Exception:
        log.exception("an answer failed")
        last = Frame(failure=Failure.of(ModelUnavailableError("the answer broke off")))
    await exchange.finish(framed(last))


def framed(frame: Frame) -> bytes:
    """As it is sent: its length in four bytes, big-endian, and itself."""
    data = msgspec.msgpack.encode(frame)
    return len(data).to_bytes(4, "big") + data


async def frames(read_exactly: Callable[[int], Awaitable[bytes]]) -> AsyncIterator[Frame]:
    """The frames of an answer up to its end.

    Raises:
        asyncio.IncompleteReadError: It broke off.
    """
    while True:
        length = int.from_bytes(await read_exactly(4), "big")
        frame = msgspec.msgpack.decode(await read_exactly(length), type=Frame)
        if frame.part is None and frame.failure is None:
            return
        yield frame


def _read(body: bytes, kind: type[MessageT]) -> MessageT:
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.DecodeError as exc:
        raise InvalidRequestError(f"a worker's call cannot be read: {exc}; do all run one version?") from exc
