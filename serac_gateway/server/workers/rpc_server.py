"""Serves the calls of workers in the model process: an ASGI application in front of the gateway's own."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing
from typing import TypeVar, cast

import msgspec
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Receive, Scope, Send

from serac_gateway.auth.principals import Principal
from serac_gateway.data_plane.engine import Engine
from serac_gateway.data_plane.engine_access import TOKEN_HEADER
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.plan import AnswerTask, RequestPlan
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import GatewayError, InvalidRequestError, ModelUnavailableError
from serac_gateway.server.body_memory import Asgi
from serac_gateway.server.workers.rpc_messages import (
    ANSWER_PATH,
    AUTHENTICATE_PATH,
    HOST_HEADER,
    AnswerFrame,
    AuthenticateCall,
    DecideCall,
    EarlierTurnsCall,
    GuardedValuesCall,
    GuardedValuesReply,
    RememberResponseCall,
    RemoteError,
    RequestReport,
)

log = logging.getLogger(__name__)

MessageT = TypeVar("MessageT")

_HEADER = TOKEN_HEADER.encode()
_HOST = HOST_HEADER.encode()
_UNLIMITED = 1 << 40
"""Bytes. The workers enforce the limits on bodies; a call is read whole, whatever its size."""
_STATUS_FAILED = 500


class RpcServer:
    """Answers the calls of workers, and gives every other request to `app`. Belongs to one event loop."""

    def __init__(
        self,
        app: Asgi,
        *,
        token: str,
        lease: Callable[[], AbstractContextManager[Engine]],
        on_report: Callable[[RequestReport], None],
    ) -> None:
        """Answers requests that carry `token`, each with the engine that `lease` yields.

        `on_report` must not raise.
        """
        self._app = app
        self._token = token.encode()
        self._lease = lease
        self._on_report = on_report
        self._methods: Mapping[str, Callable[[Engine, bytes], Awaitable[object]]] = {
            AUTHENTICATE_PATH: _authenticate,
            "/decide": _decide,
            "/guarded-values": _guarded_values,
            "/remember-response": _remember_response,
            "/with-earlier-turns": _with_earlier_turns,
            "/finished": self._take_report,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] == ScopeType.HTTP:
            presented = dict(scope["headers"]).get(_HEADER)
            if presented is not None and secrets.compare_digest(presented, self._token):
                await self._answer_call(scope, receive, send)
                return
            scope["headers"] = _with_clients_host(cast("Headers", scope["headers"]))
        await self._app(scope, receive, send)

    async def _answer_call(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        async with exchange:
            body = await exchange.read_body(_UNLIMITED)
            assert isinstance(body, bytes)
            path: str = scope["path"]
            try:
                with self._lease() as engine:
                    if path == ANSWER_PATH:
                        await _answer(exchange, engine, _decoded(body, AnswerTask))
                        return
                    reply = msgspec.msgpack.encode(await self._methods[path](engine, body))
                status = 200
            except GatewayError as error:
                status, reply = _STATUS_FAILED, msgspec.msgpack.encode(RemoteError.from_error(error))
            except Exception:
                log.exception("the worker's call %s failed", path)
                failed = ModelUnavailableError("the model process failed; its log says why")
                status, reply = _STATUS_FAILED, msgspec.msgpack.encode(RemoteError.from_error(failed))
            await exchange.respond(status, [], reply)

    async def _take_report(self, engine: Engine, body: bytes) -> None:
        self._on_report(_decoded(body, RequestReport))


def _with_clients_host(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers of a relayed request with the Host that its client sent."""
    hosts = [(b"host", value) for name, value in headers if name == _HOST]
    return [*hosts, *(header for header in headers if header[0] not in (_HOST, b"host"))]


async def _authenticate(engine: Engine, body: bytes) -> Principal:
    return await engine.authenticate(_decoded(body, AuthenticateCall).headers)


async def _guarded_values(engine: Engine, body: bytes) -> GuardedValuesReply:
    call = _decoded(body, GuardedValuesCall)
    values = await engine.guarded_values(call.namespace, None)
    return GuardedValuesReply(changed=None if values.version == call.known_version else values)


async def _decide(engine: Engine, body: bytes) -> RequestPlan:
    call = _decoded(body, DecideCall)
    request = RequestBody(call.body, form=call.form)
    plan = await engine.decide(call.namespace, call.endpoint, request, call.caller)
    decision = plan.decision
    if decision is None or len(decision.candidates) < 2:
        return plan
    # The record of the request needs only the nearest candidate, and all of them weigh 20 KB.
    decision = msgspec.structs.replace(decision, candidates=decision.candidates[:1])
    return msgspec.structs.replace(plan, decision=decision)


async def _remember_response(engine: Engine, body: bytes) -> None:
    call = _decoded(body, RememberResponseCall)
    await engine.remember_response(
        call.namespace, RequestBody(call.body), call.response_id, call.answer, call.labels
    )


async def _with_earlier_turns(engine: Engine, body: bytes) -> bytes:
    call = _decoded(body, EarlierTurnsCall)
    request = await engine.with_earlier_turns(call.namespace, RequestBody(call.body), call.labels)
    return request.data


async def _answer(exchange: Exchange, engine: Engine, task: AnswerTask) -> None:
    await exchange.start(200, [])
    try:
        async with aclosing(engine.answer(task)) as pieces:
            async for piece in pieces:
                await exchange.write(AnswerFrame(piece=piece).encode())
        last = AnswerFrame()
    except GatewayError as error:
        last = AnswerFrame(error=RemoteError.from_error(error))
    except Exception:
        log.exception("an answer failed")
        broken = ModelUnavailableError("the answer broke off")
        last = AnswerFrame(error=RemoteError.from_error(broken))
    await exchange.finish(last.encode())


def _decoded(body: bytes, kind: type[MessageT]) -> MessageT:
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.DecodeError as exc:
        raise InvalidRequestError(
            f"a worker's call cannot be decoded: {exc}; the workers may run another version than this process"
        ) from exc
