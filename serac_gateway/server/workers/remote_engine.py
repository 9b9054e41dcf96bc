"""The engine of a worker: every method is a call to the model process, unless a look-up makes it needless."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from typing_extensions import override

from serac_gateway.auth.authenticator import credential_headers
from serac_gateway.auth.principals import ANYONE, Principal
from serac_gateway.config.model import OidcConfig
from serac_gateway.data_plane.engine import Engine, NeedsDecision
from serac_gateway.data_plane.plan import AnswerTask, RequestPlan
from serac_gateway.data_plane.protocols.answers import ChoicePiece
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.data_plane.response_memory import may_continue
from serac_gateway.domain.audiences import Caller, Labels
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import GatewayError
from serac_gateway.routing.guarded_values import GuardedValues
from serac_gateway.server.workers.rpc_client import RpcClient
from serac_gateway.server.workers.rpc_messages import (
    AUTHENTICATE_PATH,
    AuthenticateCall,
    DecideCall,
    EarlierTurnsCall,
    GuardedValuesCall,
    GuardedValuesReply,
    RememberResponseCall,
)

log = logging.getLogger(__name__)

_SLACK_S = 1.0
"""The model process ends what takes too long; the worker does so this much later, if it is not heard of."""


class NamespaceTable(Protocol):
    """What is known here of namespaces, without a call."""

    def needs_decision(self, namespace: str) -> NeedsDecision:
        """See `Engine.needs_decision`."""
        ...


class RemoteEngine(Engine):
    """Has the `LocalEngine` of the model process do the work.

    Rates of API keys and earlier responses are therefore the same in all workers.
    """

    def __init__(
        self,
        client: RpcClient,
        namespaces: NamespaceTable,
        *,
        keys_required: bool,
        oidc: OidcConfig,
        decision_timeout_s: float,
        answer_timeout_s: float,
    ) -> None:
        """Without `keys_required` a request without a key may do everything; a key that comes is checked.

        The timeouts are those of the engine of the model process.
        """
        self._client = client
        self._namespaces = namespaces
        self._keys_required = keys_required
        self._oidc = oidc
        self._decision_timeout_s = decision_timeout_s + _SLACK_S
        self._answer_timeout_s = answer_timeout_s + _SLACK_S

    @override
    async def authenticate(self, headers: Headers) -> Principal:
        presented = credential_headers(headers, self._oidc, required=self._keys_required)
        if not presented and not self._keys_required:
            return ANYONE
        return await self._client.call(AUTHENTICATE_PATH, AuthenticateCall(headers=presented), Principal)

    @override
    def needs_decision(self, namespace: str) -> NeedsDecision:
        return self._namespaces.needs_decision(namespace)

    @override
    async def guarded_values(self, namespace: str, known: GuardedValues | None) -> GuardedValues:
        version = None if known is None else known.version
        call = GuardedValuesCall(namespace=namespace, known_version=version)
        reply = await self._client.call("/guarded-values", call, GuardedValuesReply)
        if reply.changed is None:
            assert known is not None
            return known
        return reply.changed

    @override
    async def decide(
        self, namespace: str, endpoint: Endpoint, body: RequestBody, caller: Caller
    ) -> RequestPlan:
        call = DecideCall(
            namespace=namespace, endpoint=endpoint, body=body.data, form=body.form, caller=caller
        )
        return await self._client.call("/decide", call, RequestPlan, timeout_s=self._decision_timeout_s)

    @override
    def answer(
        self, task: AnswerTask, *, on_tokens: Callable[[int], None] = lambda count: None
    ) -> AsyncGenerator[ChoicePiece, None]:
        return self._client.answer(task, on_tokens, timeout_s=self._answer_timeout_s)

    @override
    async def remember_response(
        self, namespace: str, request: RequestBody, response_id: str, answer: str, labels: Labels
    ) -> None:
        call = RememberResponseCall(
            namespace=namespace,
            body=request.data,
            response_id=response_id,
            answer=answer,
            labels=dict(labels),
        )
        try:
            await self._client.call("/remember-response", call, type(None))
        except GatewayError as error:  # the answer itself is complete
            log.warning("no request can continue from response %s: %s", response_id, error.message)

    @override
    async def with_earlier_turns(self, namespace: str, request: RequestBody, labels: Labels) -> RequestBody:
        if not may_continue(request):
            return request
        call = EarlierTurnsCall(namespace=namespace, body=request.data, labels=dict(labels))
        try:
            body = await self._client.call("/with-earlier-turns", call, bytes)
        except GatewayError as error:  # the upstream may know the response
            log.warning("the response that a request continues from cannot be looked up: %s", error.message)
            return request
        return request if body == request.data else RequestBody(body, form=request.form.rewritten())
