"""The data plane: everything on /v1, as one raw ASGI application.

A request is passed to the upstream as it is, unless an edit governs it: then it is answered here.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing

import msgspec
from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send

from serac_gateway import __version__
from serac_gateway.access import Principal
from serac_gateway.api_keys import KEY_PREFIX
from serac_gateway.completions.base import AnswerHead, AnswerWriter, Endpoint
from serac_gateway.completions.endpoints import answer_writer
from serac_gateway.config import FailurePolicy, GatewayConfig
from serac_gateway.errors import (
    GatewayError,
    InvalidRequestError,
    ModelUnavailableError,
    StoreUnavailableError,
    UpstreamError,
)
from serac_gateway.http.answering import CounterfactualAnswers
from serac_gateway.http.authentication import OWN_HEADER, Authenticator, without_keys
from serac_gateway.http.error_responses import error_headers
from serac_gateway.http.error_shapes import ErrorShape, error_body, error_event, error_shape
from serac_gateway.http.exchange import ClientLeftError, Exchange
from serac_gateway.http.finished import FinishedRequest, SoFar, finished
from serac_gateway.http.instruments import Instruments
from serac_gateway.http.relay import relay
from serac_gateway.http.verdict import UNDECIDED, AnswerTask, Verdict, decide, verdict_headers
from serac_gateway.language_models.answers import Part, event_stream, whole_answer
from serac_gateway.metrics import RouteCounts
from serac_gateway.recorded_traffic import RecordedTraffic
from serac_gateway.routing import EditRouter, Route, RouteDecision
from serac_gateway.upstream.base import Upstream, UpstreamRequest

log = logging.getLogger(__name__)

PREFIX = b"/v1"
SYSTEM_FINGERPRINT = f"fp_serac_{__version__}"

_WHOLE_BODY_BYTES = 1_048_576
"""A body up to this is read before it is sent on, so that it can be sent again (see upstream/http.py)."""
_DOT_SEGMENT = re.compile(rb"(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
_NOT_LOADED = ModelUnavailableError("the stored edits are still being loaded")
_ENDPOINTS = {endpoint.encode(): endpoint for endpoint in Endpoint}


class DataPlane:
    """Passes /v1 on to the upstream, and answers in-scope requests with the counterfactual model.

    Belongs to one event loop. What may take time runs elsewhere: decisions on `decision_pool`, answers on
    the pool of `answers`.
    """

    def __init__(
        self,
        *,
        router: EditRouter,
        upstream: Upstream,
        answers: CounterfactualAnswers,
        decision_pool: Executor,
        config: GatewayConfig,
        counts: RouteCounts,
        authenticator: Authenticator,
        instruments: Instruments,
        traffic: RecordedTraffic | None = None,
        observers: Sequence[Callable[[FinishedRequest], None]] = (),
    ) -> None:
        """Without `traffic` no query is recorded.

        `observers` are told of every request that has ended; they must be quick and must not fail.
        """
        self._router = router
        self._traffic = traffic
        self._upstream = upstream
        self._answers = answers
        self._decision_pool = decision_pool
        self._max_classified_bytes = config.server.max_classified_body_bytes
        self._on_failure = config.routing.on_failure
        self._counts = counts
        self._authenticator = authenticator
        self._instruments = instruments
        self._observers = (instruments.add, *observers)
        self.decisions_open = 0
        """Decisions that are being made or wait for a thread."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application: mount it at /v1."""
        if scope["type"] != ScopeType.HTTP:
            await send({"type": "websocket.close", "code": 1008, "reason": "no websockets here"})
            return
        exchange, so_far = Exchange(scope, receive, send), SoFar()
        self._counts.in_flight += 1
        try:
            async with exchange:
                await self._respond(exchange, so_far)
        finally:
            self._counts.in_flight -= 1
            self._count(finished(exchange, so_far))

    async def _respond(self, exchange: Exchange, so_far: SoFar) -> None:
        try:
            principal = await self._authenticator.authenticate(exchange.headers)
            so_far.key_id = principal.key_id
            asked = exchange.header(b"x-serac-namespace")
            namespace = principal.namespace(None if asked is None else asked.decode("latin-1"))
            so_far.namespace = namespace
            target = _target(exchange)
            endpoint = _ENDPOINTS.get(target.partition(b"?")[0]) if exchange.method == "POST" else None
            body, so_far.verdict = await self._read_and_decide(exchange, namespace, endpoint, principal)
            if so_far.verdict.task is not None:
                so_far.verdict = await self._answer(exchange, so_far.verdict, so_far.verdict.task)
            if exchange.status is None:
                told = so_far.verdict.body
                await self._pass_on(exchange, so_far.verdict, target, body if told is None else told)
        except ClientLeftError:
            raise
        except GatewayError as error:
            if isinstance(error, UpstreamError):
                exchange.upstream_error = error
            elif isinstance(error, StoreUnavailableError):
                self._instruments.add_store_error("api keys")
            so_far.verdict = await _refuse(exchange, so_far.verdict, error)
        except Exception:
            log.exception("request=%s failed", exchange.request_id.decode())
            failed = GatewayError("the gateway failed; its log says why")
            so_far.verdict = await _refuse(exchange, so_far.verdict, failed)

    def _count(self, request: FinishedRequest) -> None:
        self._counts.add(request.route, request.reason, request.namespace)
        self._counts.clients_left += request.client_left
        if request.namespace is not None and request.decision is not None:
            _count_edits(self._counts, request.namespace, request.route, request.decision)
        for observe in self._observers:
            observe(request)

    async def _read_and_decide(
        self, exchange: Exchange, namespace: str, endpoint: Endpoint | None, principal: Principal
    ) -> tuple[bytes | AsyncIterator[bytes], Verdict]:
        if endpoint is None:
            body = await exchange.read_body(_WHOLE_BODY_BYTES)
            return body, Verdict(route=Route.BYPASS, reason="endpoint not classified")
        if not self._router.is_ready:
            verdict = self._after_failure("edits not loaded", _NOT_LOADED, UNDECIDED)
            return await exchange.read_body(_WHOLE_BODY_BYTES), verdict
        recording = self._traffic is not None and self._traffic.is_on(namespace)
        if not (self._router.has_edits(namespace) or recording):
            body = await exchange.read_body(_WHOLE_BODY_BYTES)
            return body, Verdict(route=Route.BASE, reason="no edits")
        body = await exchange.read_body(self._max_classified_bytes)
        if not isinstance(body, bytes):
            return body, Verdict(route=Route.BYPASS, reason="body too long")
        begun = time.perf_counter()
        sender = _sender(exchange, principal)
        loop = asyncio.get_running_loop()
        self.decisions_open += 1
        try:
            verdict = await loop.run_in_executor(
                self._decision_pool, decide, self._router, namespace, endpoint, body, sender
            )
        except Exception as exc:
            verdict = self._after_failure("decision failed", exc, UNDECIDED)
        finally:
            self.decisions_open -= 1
        if self._traffic is not None and verdict.query is not None:
            self._traffic.note(namespace, verdict.query)
        return body, msgspec.structs.replace(verdict, decide_ms=(time.perf_counter() - begun) * 1_000)

    async def _answer(self, exchange: Exchange, verdict: Verdict, task: AnswerTask) -> Verdict:
        """Answer here. If that fails before the first byte the new verdict says so, and nothing was sent."""
        request = task.request
        head = AnswerHead(
            token=secrets.token_hex(12), created=int(time.time()), system_fingerprint=SYSTEM_FINGERPRINT
        )
        writer = answer_writer(head, request)
        try:
            async with aclosing(self._answers.parts(task.edit, task.query, request)) as parts:
                if request.stream:
                    await _stream(exchange, verdict, writer, parts)
                else:
                    answer = await whole_answer(writer, request, parts)
                    await exchange.respond(200, _json_headers(exchange, verdict), msgspec.json.encode(answer))
        except Exception as exc:
            if exchange.status is None:
                return self._after_failure("answer failed", exc, verdict)
            error = exc if isinstance(exc, GatewayError) else ModelUnavailableError("the answer broke off")
            log.warning("request=%s answer broke off: %r", exchange.request_id.decode(), exc)
            await exchange.finish(error_event(exchange, error, writer.events_written))
        return verdict

    async def _pass_on(
        self, exchange: Exchange, verdict: Verdict, target: bytes, body: bytes | AsyncIterator[bytes]
    ) -> None:
        headers = [(name, value) for name, value in exchange.headers if not name.startswith(b"x-serac-")]
        request = UpstreamRequest(
            method=exchange.method, target=target, headers=without_keys(headers), body=body
        )
        exchange.marks.upstream_asked = time.perf_counter()
        async with self._upstream.send(request) as response:
            exchange.marks.upstream_answered = time.perf_counter()
            await relay(response, exchange, verdict_headers(exchange, verdict))

    def _after_failure(self, reason: str, exc: Exception, verdict: Verdict) -> Verdict:
        """The way on after our own failure: to the base model.

        Raises:
            ModelUnavailableError: The policy is to refuse instead.
        """
        if isinstance(exc, GatewayError):
            reason = str(exc.details.get("reason", reason))
            log.warning("%s: %s", reason, exc.message)
        else:
            log.error("%s", reason, exc_info=exc)
        self._instruments.add_failure(reason, self._on_failure.value)
        if self._on_failure is FailurePolicy.CLOSED:
            raise ModelUnavailableError(
                f"the gateway could not decide or answer this request ({reason}); it refuses such requests",
                details={"reason": reason},
            ) from exc
        return msgspec.structs.replace(verdict, route=Route.BYPASS, reason=reason, body=None)


async def _stream(
    exchange: Exchange, verdict: Verdict, writer: AnswerWriter, parts: AsyncIterator[Part]
) -> None:
    async with aclosing(event_stream(writer, parts)) as events:
        first = await anext(events)  # before the status goes out: until here all can still fail openly
        await exchange.start(
            200,
            [
                *exchange.own_headers(),
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                *_told(exchange, verdict),
            ],
        )
        await exchange.write(first)
        async for chunk in events:
            await exchange.write(chunk)
        await exchange.finish()


async def _refuse(exchange: Exchange, verdict: Verdict, error: GatewayError) -> Verdict:
    if exchange.status is not None:
        return verdict  # too late to say anything: the server closes the connection
    status, body = error_body(exchange, error)
    route = verdict.route if status in (502, 504) else Route.BYPASS
    reason = str(error.details.get("reason", verdict.reason))
    verdict = msgspec.structs.replace(verdict, route=route, reason=reason)
    headers = _json_headers(exchange, verdict) + [
        (name.encode(), value.encode()) for name, value in error_headers(status, error.details).items()
    ]
    await exchange.respond(status, headers, msgspec.json.encode(body))
    return verdict


def _json_headers(exchange: Exchange, verdict: Verdict) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), *_told(exchange, verdict)]


def _told(exchange: Exchange, verdict: Verdict) -> list[tuple[bytes, bytes]]:
    """Headers of a reply of our own; Anthropic's clients know a request by `request-id`."""
    own = [(b"request-id", exchange.request_id)] if error_shape(exchange) is ErrorShape.ANTHROPIC else []
    return [*own, *verdict_headers(exchange, verdict)]


def _count_edits(counts: RouteCounts, namespace: str, route: Route, decision: RouteDecision) -> None:
    if decision.withheld is not None:
        counts.add_edit(namespace, decision.withheld.id, applied=False)
    if route in (Route.COUNTERFACTUAL, Route.IN_CONTEXT):
        for edit in decision.context_edits or ((decision.edit,) if decision.edit else ()):
            counts.add_edit(namespace, edit.id, applied=True)


def _sender(exchange: Exchange, principal: Principal) -> str:
    """Who sends, by what stays the same: the API key, or without one the client's address."""
    if principal.key_id is not None:
        return f"key:{principal.key_id}"
    client = exchange.scope["client"]
    return f"address:{client[0] if client else ''}"


def _target(exchange: Exchange) -> bytes:
    """Path and query below /v1, as the client wrote them."""
    path: bytes = exchange.scope["raw_path"]
    below = path.removeprefix(PREFIX)
    if below == path or (below and not below.startswith(b"/")):
        raise InvalidRequestError(
            f"path {path[:200].decode('latin-1')!r} is not on /v1; write it as /v1/…", field="path"
        )
    if _DOT_SEGMENT.search(below):  # it could leave the upstream's base path, with the gateway's own key
        raise InvalidRequestError(
            f"path {path[:200].decode('latin-1')!r} has a segment . or ..; write it out", field="path"
        )
    query: bytes = exchange.scope["query_string"]
    target = below + b"?" + query if query else below
    if KEY_PREFIX.encode() in target:
        raise InvalidRequestError(
            f"an API key stands in the URL, where logs would keep it; send it in {OWN_HEADER.decode()}",
            field="path",
        )
    return target
