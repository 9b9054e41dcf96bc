"""The data plane: everything on /v1, as one raw ASGI application.

A request passes to the upstream unchanged, unless an edit governs it: then it is answered here, or gets the
edit in its context.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing

import msgspec
from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send

from serac_gateway import __version__
from serac_gateway.auth.audience_labels import AudienceLabels
from serac_gateway.auth.principals import Role, requested_namespace
from serac_gateway.config.model import FailurePolicy, GatewayConfig, UnreadablePolicy
from serac_gateway.data_plane.batch import batch_pieces, completed_choices, prompts_alone
from serac_gateway.data_plane.engine import Engine, NeedsDecision
from serac_gateway.data_plane.exchange import ClientLeftError, Exchange
from serac_gateway.data_plane.guard.guarded_relay import relay_guarded
from serac_gateway.data_plane.guard.guards import ValueGuards
from serac_gateway.data_plane.paths import classified_path
from serac_gateway.data_plane.plan import AnswerTask, RequestPlan, serac_headers
from serac_gateway.data_plane.protocols.answers import ChoicePiece, whole_answer
from serac_gateway.data_plane.protocols.base import AnswerHead, CompletionRequest
from serac_gateway.data_plane.protocols.body import BodyForm, RequestBody
from serac_gateway.data_plane.protocols.endpoints import PROTOCOLS
from serac_gateway.data_plane.protocols.errors import error_event
from serac_gateway.data_plane.protocols.responses import ResponsesWriter
from serac_gateway.data_plane.refusals import refusal_pieces
from serac_gateway.data_plane.replies import json_headers, refuse, send_stream
from serac_gateway.data_plane.request_head import (
    LoopGuard,
    caller_of,
    client_of,
    passed_headers,
    plain_json_headers,
    refuse_websocket,
    target_of,
)
from serac_gateway.data_plane.request_state import RequestState, finished_request
from serac_gateway.data_plane.speculation import SpeculativeRequest, called_off
from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest, UpstreamResponse
from serac_gateway.domain.edits import EditKind
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.errors import (
    AnswerDeclinedError,
    GatewayError,
    ModelUnavailableError,
    NamespaceQuarantinedError,
    StoreUnavailableError,
    TooLongToReadError,
    UnreadableError,
    UpstreamError,
)
from serac_gateway.models.language_models.base import Piece
from serac_gateway.observability.counts import RouteCounts
from serac_gateway.observability.request_record import Failure, FinishedRequest
from serac_gateway.observability.tracing import RequestTrace, Tracing, Untraced
from serac_gateway.routing.router import Route

log = logging.getLogger(__name__)

SYSTEM_FINGERPRINT = f"fp_serac_{__version__}"

_WHOLE_BODY_BYTES = 1_048_576
"""A body up to this size is read whole before it is sent on, and can be repeated (upstream/http.py)."""
_NOT_LOADED = ModelUnavailableError("the stored edits are still being loaded")
_HOLD_STEP_S = 0.05
_UNTRACED = Untraced()

AnyBody = RequestBody | bytes | AsyncIterator[bytes]
"""A request body: one to be decoded, a whole one to be passed on, or one that is still arriving."""


class DataPlane:
    """Passes /v1 on to the upstream, and answers in-scope requests with the counterfactual model.

    Belongs to one event loop. All work that needs a model or a store is the engine's.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        upstream: Upstream,
        config: GatewayConfig,
        counts: RouteCounts,
        tracing: Tracing = _UNTRACED,
        loop_guard: LoopGuard | None = None,
        observers: Sequence[Callable[[FinishedRequest], None]] = (),
    ) -> None:
        """Instances may share `loop_guard` and `counts`, of which only `in_flight` is kept here.

        `observers` are called with each request that has ended; they must be quick and must not raise.
        """
        self.engine = engine
        self.upstream = upstream
        """The base model."""
        self._max_classified_bytes = config.server.max_classified_body_bytes
        self._ping_interval_s = config.server.ping_interval_s
        self._routing = config.routing
        self._labels = AudienceLabels(config.routing.audience_from)
        self._oidc = config.oidc
        self._guards = ValueGuards(engine, config.suppression, config.routing)
        self._counts = counts
        self._tracing = tracing
        self._loop_guard = loop_guard or LoopGuard()
        self._observers = tuple(observers)

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, refusal: GatewayError | None = None
    ) -> None:
        """The ASGI application: mount it at /v1. With `refusal`, the request is refused with that error."""
        if scope["type"] != ScopeType.HTTP:
            await send({"type": "websocket.close", "code": 1008, "reason": "no websockets here"})
            return
        exchange, state = Exchange(scope, receive, send), RequestState()
        trace = self._tracing.begin(exchange)
        self._counts.in_flight += 1
        try:
            async with exchange:
                await self._respond(exchange, state, trace, refusal)
        finally:
            self._counts.in_flight -= 1
            request = finished_request(exchange, state)
            self.observe(request)
            trace.end(request)

    async def _respond(
        self, exchange: Exchange, state: RequestState, trace: RequestTrace, refusal: GatewayError | None
    ) -> None:
        try:
            if refusal is not None:
                raise refusal
            refuse_websocket(exchange)
            loop_header = self._loop_guard.header_for(exchange)
            principal = await self.engine.authenticate(exchange.headers)
            state.key_id = principal.key_id
            exchange.may_see_decision = principal.role.allows(Role.EDIT)
            state.namespace = namespace = principal.namespace(requested_namespace(exchange.headers))
            exchange.caller = caller_of(exchange, principal, self._labels)
            target = target_of(exchange)

            async def upstream_request(body: AnyBody, *, rewritten: bool = False) -> UpstreamRequest:
                passed = passed_headers(exchange.headers, self._oidc, plain_reply=bool(state.reply_guard))
                if (without := await state.without_values(body)) is not None:
                    body, rewritten = without, True
                if rewritten:
                    passed = plain_json_headers(passed)
                return UpstreamRequest(
                    method=exchange.method,
                    target=target,
                    headers=trace.upstream_headers([*passed, loop_header]),
                    body=body.data if isinstance(body, RequestBody) else body,
                    client=client_of(exchange),
                    scheme=exchange.scope["scheme"],
                    sender=principal,
                    held=exchange.held,
                )

            async def speculate(body: RequestBody) -> SpeculativeRequest:
                state.speculative = SpeculativeRequest(self.upstream, await upstream_request(body))
                return state.speculative

            body, plan = await self._read_and_plan(exchange, state, namespace, speculate)
            state.plan, exchange.keeps_reply = plan, plan.keeps_reply
            is_refused = plan.task is not None and plan.task.edit.kind is EditKind.SUPPRESSION
            if state.speculative is None and not is_refused:
                state.guard = await self._guards.of(namespace, exchange.caller)
            if plan.task is not None or plan.batch is not None or plan.body is not None:
                await called_off(state.speculative, trace)
            if plan.task is not None:
                plan = state.plan = await self._answer(
                    exchange, state, plan.task.request, self._pieces(exchange, plan.task), body
                )
            elif plan.batch is not None:
                assert isinstance(body, RequestBody)
                whole = body if plan.body is None else RequestBody(plan.body)

                async def completed(places: Sequence[int]) -> list[Piece]:
                    rest = RequestBody(await asyncio.to_thread(prompts_alone, whole, places))
                    async with self.upstream.send(await upstream_request(rest, rewritten=True)) as response:
                        return await state.guarded(await completed_choices(response), exchange)

                pieces = batch_pieces(plan.batch, lambda task: self._pieces(exchange, task), completed)
                plan = state.plan = await self._answer(exchange, state, plan.batch.request, pieces, body)
            speculative = state.speculative
            if exchange.status is not None:
                return
            if speculative is not None and speculative.outcome is None:
                await self._pass_on_speculative(exchange, state, speculative)
            else:
                if plan.body is not None:
                    request = await upstream_request(RequestBody(plan.body), rewritten=True)
                else:
                    request = await upstream_request(body)
                await self._pass_on(exchange, state, request)
        except ClientLeftError:
            raise
        except GatewayError as error:
            if isinstance(error, UpstreamError):
                exchange.upstream_error = error
            elif isinstance(error, StoreUnavailableError):
                state.key_store_failed = True
            state.plan = await refuse(exchange, state.plan, error)
        except Exception:
            log.exception("request=%s failed", exchange.request_id.decode())
            failed = GatewayError("the gateway failed; its log says why")
            state.plan = await refuse(exchange, state.plan, failed)
        finally:
            await called_off(state.speculative, trace)

    def observe(self, request: FinishedRequest) -> None:
        """Hand a request that has ended, here or in a worker, to the observers."""
        for observe in self._observers:
            observe(request)

    async def _read_and_plan(
        self,
        exchange: Exchange,
        state: RequestState,
        namespace: str,
        speculate: Callable[[RequestBody], Awaitable[SpeculativeRequest]],
    ) -> tuple[AnyBody, RequestPlan]:
        path, labels = classified_path(exchange.raw_path), exchange.caller.labels
        endpoint = path.endpoint if exchange.method == "POST" else None
        if endpoint is None:
            body = await exchange.read_body(_WHOLE_BODY_BYTES)
            return body, RequestPlan(route=Route.BYPASS, reason="endpoint not classified")
        needs_decision = self.engine.needs_decision(namespace)
        if needs_decision is NeedsDecision.UNKNOWN:
            needs_decision = await self._need_once_known(namespace)
        if needs_decision is NeedsDecision.NONE:
            plan = RequestPlan(route=Route.BASE, reason="no edits")
            body = await exchange.read_body(_WHOLE_BODY_BYTES)
            if endpoint is Endpoint.RESPONSES and isinstance(body, bytes):
                return await self.engine.with_earlier_turns(namespace, RequestBody(body), labels), plan
            return body, plan
        may_leak = needs_decision in (NeedsDecision.SUPPRESSIONS, NeedsDecision.UNKNOWN)
        policy = self._routing.on_failure_of(namespace, suppressions=may_leak)
        if needs_decision is NeedsDecision.UNKNOWN:
            plan = self._after_failure(state, policy, "edits not loaded", _NOT_LOADED)
            return await exchange.read_body(_WHOLE_BODY_BYTES), plan
        body = await exchange.read_body(self._max_classified_bytes)
        if not isinstance(body, bytes) or len(body) > self._max_classified_bytes:
            self._check_may_pass_unread(namespace, needs_decision)
            return body, RequestPlan(route=Route.BYPASS, reason="body too long")
        form = BodyForm(
            content_encoding=b",".join(exchange.all_of(b"content-encoding")).decode("latin-1"),
            content_type=(exchange.header(b"content-type") or b"").decode("latin-1"),
            path_model=path.model,
            max_decoded_bytes=self._max_classified_bytes,
        )
        request = RequestBody(body, form=form)
        if endpoint is Endpoint.RESPONSES:
            request = await self.engine.with_earlier_turns(namespace, request, labels)
        if self._routing.speculate:
            state.guard = await self._guards.of(namespace, exchange.caller)
            await (await speculate(request)).written()
        begun = exchange.marks.decide_begun = time.perf_counter()
        try:
            plan = await self.engine.decide(namespace, endpoint, request, exchange.caller)
        except UnreadableError:
            raise
        except Exception as exc:
            plan = self._after_failure(state, policy, "decision failed", exc)
        return request, msgspec.structs.replace(plan, decide_s=time.perf_counter() - begun)

    async def _need_once_known(self, namespace: str) -> NeedsDecision:
        """Whether requests of `namespace` need a decision; UNKNOWN if that is not known in time.

        While the stored edits are loaded nobody knows whether there are suppressions among them: the requests
        of those seconds are held, so that none leaks.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._routing.hold_s
        while (need := self.engine.needs_decision(namespace)) is NeedsDecision.UNKNOWN:
            if loop.time() >= deadline:
                break
            await asyncio.sleep(_HOLD_STEP_S)
        return need

    def _check_may_pass_unread(self, namespace: str, needs_decision: NeedsDecision) -> None:
        """Return if a body that is too long to be read may pass.

        Raises:
            TooLongToReadError: The policy is to refuse it.
        """
        suppressions = needs_decision is NeedsDecision.SUPPRESSIONS
        policy = self._routing.on_unreadable_of(namespace, suppressions=suppressions)
        if policy is UnreadablePolicy.REFUSE:
            limit = self._max_classified_bytes
            raise TooLongToReadError(
                f"the body is longer than {limit:,} bytes, and what is too long to be read is refused here;"
                " send less",
                details={"reason": "body too long", "limit": limit},
            )

    def _pieces(self, exchange: Exchange, task: AnswerTask) -> AsyncGenerator[ChoicePiece, None]:
        """The answer as it is made: a refusal at once and here, any other by the engine."""
        if task.edit.kind is EditKind.SUPPRESSION:
            return refusal_pieces(task)
        return self.engine.answer(task, on_tokens=exchange.add_answer_tokens)

    async def _answer(
        self,
        exchange: Exchange,
        state: RequestState,
        request: CompletionRequest,
        answering: AsyncGenerator[ChoicePiece, None],
        body: AnyBody,
    ) -> RequestPlan:
        """Answer here; returns the plan.

        If the answer fails before its first byte, nothing is sent, and the plan is the one after a failure;
        if it is declined then, the plan is to pass the request on.
        """
        plan, namespace = state.plan, state.namespace or ""
        head = AnswerHead(
            token=secrets.token_hex(12), created=int(time.time()), system_fingerprint=SYSTEM_FINGERPRINT
        )
        writer = PROTOCOLS[request.endpoint].answer_writer(head, request)

        async def remember() -> None:
            if isinstance(writer, ResponsesWriter) and isinstance(body, RequestBody):
                response_id, answer, labels = writer.response_id, writer.text_written, exchange.caller.labels
                await self.engine.remember_response(namespace, body, response_id, answer, labels)

        exchange.marks.answer_begun = time.perf_counter()
        try:
            async with aclosing(answering) as pieces:
                if request.stream:
                    await send_stream(exchange, plan, writer, pieces, before_end=remember)
                else:
                    answer = await whole_answer(writer, request, pieces)
                    await remember()
                    await exchange.respond(200, json_headers(exchange, plan), msgspec.json.encode(answer))
        except Exception as exc:
            if exchange.status is None and isinstance(exc, AnswerDeclinedError):
                route = Route.BASE if plan.body is None else Route.IN_CONTEXT
                reason = str(exc.details.get("reason", "declined"))
                return msgspec.structs.replace(plan, route=route, reason=reason, task=None, batch=None)
            if exchange.status is None:
                may_leak = plan.task is not None and plan.task.edit.kind is EditKind.SUPPRESSION
                policy = self._routing.on_failure_of(namespace, suppressions=may_leak)
                return self._after_failure(state, policy, "answer failed", exc)
            error = exc if isinstance(exc, GatewayError) else ModelUnavailableError("the answer broke off")
            log.warning("request=%s answer broke off: %r", exchange.request_id.decode(), exc)
            await exchange.finish(error_event(exchange, error, writer.events_written))
        return plan

    async def _pass_on(self, exchange: Exchange, state: RequestState, request: UpstreamRequest) -> None:
        exchange.marks.upstream_sent = time.perf_counter()
        async with self.upstream.send(request) as response:
            exchange.marks.upstream_answered = time.perf_counter()
            await self._relay(exchange, state, response)

    async def _pass_on_speculative(
        self, exchange: Exchange, state: RequestState, speculative: SpeculativeRequest
    ) -> None:
        exchange.marks.upstream_sent = speculative.sent
        async with speculative as response:
            exchange.marks.upstream_answered = speculative.answered
            await self._relay(exchange, state, response)

    async def _relay(self, exchange: Exchange, state: RequestState, response: UpstreamResponse) -> None:
        headers = serac_headers(exchange, state.plan)
        cut_by = await relay_guarded(response, exchange, headers, state.reply_guard, self._ping_interval_s)
        state.note_cut(cut_by, exchange)

    def _after_failure(
        self, state: RequestState, policy: FailurePolicy, reason: str, exc: Exception
    ) -> RequestPlan:
        """The plan after a failure of our own, if the policy is to let the base model answer.

        Raises:
            ModelUnavailableError, NamespaceQuarantinedError: The policy is to refuse.
        """
        if isinstance(exc, GatewayError):
            reason = str(exc.details.get("reason", reason))
            log.warning("%s: %s", reason, exc.message)
        else:
            log.error("%s", reason, exc_info=exc)
        state.failure = Failure(reason=reason, policy=policy)
        if policy is FailurePolicy.CLOSED and isinstance(exc, NamespaceQuarantinedError):
            raise exc
        if policy is FailurePolicy.CLOSED:
            raise ModelUnavailableError(
                f"the gateway could not decide or answer this request ({reason}); it refuses such requests",
                details={"reason": reason},
            ) from exc
        return msgspec.structs.replace(state.plan, route=Route.BYPASS, reason=reason, body=None, batch=None)
