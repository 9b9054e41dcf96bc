"""Runs the counterfactual model for in-scope requests: a bounded queue and a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import aclosing

from typing_extensions import override

from serac_gateway.config.model import ModelsConfig
from serac_gateway.data_plane.engine import Answers, Deciding, NeedsDecision
from serac_gateway.data_plane.plan import RequestPlan, plan_request
from serac_gateway.data_plane.protocols.answers import ChoicePiece
from serac_gateway.data_plane.protocols.base import CompletionRequest
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.domain.edits import Edit, EditKind
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import Query
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.models.counterfactual.base import CounterfactualModel
from serac_gateway.models.language_models.base import Sampling
from serac_gateway.models.language_models.threads import ThreadItems
from serac_gateway.observability.counts import AnswerCounts, DecisionCounts
from serac_gateway.routing.router import EditRouter
from serac_gateway.stores.traffic_recorder import RecordedTraffic


class CounterfactualAnswers(Answers):
    """Answers on the threads of `pool`, at most `answer_threads + max_queued_answers` at a time."""

    def __init__(
        self,
        *,
        model: CounterfactualModel,
        active_edits: ActiveEdits,
        pool: Executor,
        config: ModelsConfig,
        counts: AnswerCounts | None = None,
    ) -> None:
        """`counts` is shared by those that share the pool: their limit is one."""
        self._model = model
        self._live_edits = active_edits
        self._pool = pool
        self._config = config
        self._limit = config.answer_threads + config.max_queued_answers
        self.counts = counts or AnswerCounts()

    @property
    def open(self) -> int:
        """Answers that are being generated or wait for it."""
        return self.counts.open

    @override
    async def parts(
        self,
        edit: Edit,
        query: Query,
        request: CompletionRequest,
        *,
        on_tokens: Callable[[int], None] = lambda count: None,
    ) -> AsyncGenerator[ChoicePiece, None]:
        if self.counts.open >= self._limit:
            raise _unavailable("answer queue full", f"{self._limit} answers are open already; try again")
        deadline = asyncio.get_running_loop().time() + self._config.answer_timeout_s
        self.counts.open += 1
        try:
            async with aclosing(
                ThreadItems(self._pool, lambda cancelled: self._generate(edit, query, request, cancelled))
            ) as parts:
                while True:
                    async with asyncio.timeout_at(deadline):
                        part = await anext(parts, None)
                    if part is None:
                        return
                    self.counts.tokens += part.piece.tokens
                    on_tokens(part.piece.tokens)
                    yield part
        except TimeoutError as exc:
            limit_s = self._config.answer_timeout_s
            raise _unavailable("answer timeout", f"the answer took longer than {limit_s:g} s") from exc
        finally:
            self.counts.open -= 1

    async def whole(self, edit: Edit, query: Query) -> str:
        """The answer as one text, as to a request that asks for nothing special. Raises as `parts` does."""
        request = CompletionRequest(endpoint=Endpoint.CHAT, model="")
        async with aclosing(self.parts(edit, query, request)) as parts:
            return "".join([part.piece.text async for part in parts]).strip()

    def _generate(
        self, edit: Edit, query: Query, request: CompletionRequest, cancelled: Callable[[], bool]
    ) -> Iterator[ChoicePiece]:
        if self._live_edits.current(edit.namespace, edit.id) != edit:
            raise _unavailable("edit out of force", f"edit {edit.id!r} was changed while its answer waited")
        prompt_tokens = sum(self._model.count_tokens(text) for text in (*query.context, query.text))
        for choice in range(request.choices):
            for piece in self._model.answer(
                edit, query, self._sampling(edit, request, choice), cancelled=cancelled
            ):
                yield ChoicePiece(choice=choice, piece=piece, prompt_tokens=prompt_tokens)

    def _sampling(self, edit: Edit, request: CompletionRequest, choice: int) -> Sampling:
        """As the request asks, within our limit of tokens; greedy unless it names a temperature.

        Our limit is on what the model makes up, so it never cuts what an editor wrote to be said.
        """
        limit = self._config.max_answer_tokens
        if edit.kind is not EditKind.INSTRUCTION:
            limit += self._model.count_tokens(edit.target_new)
        return Sampling(
            max_tokens=min(request.max_tokens or limit, limit),
            temperature=request.temperature or 0.0,
            top_p=request.top_p,
            seed=None if request.seed is None else request.seed + choice,
            stop=request.stop,
        )


def _unavailable(reason: str, message: str) -> ModelUnavailableError:
    return ModelUnavailableError(message, details={"reason": reason})


class DecidingHere(Deciding):
    """Decides with the router of this process, on the threads of `pool`."""

    def __init__(
        self,
        *,
        router: EditRouter,
        pool: Executor,
        counts: DecisionCounts,
        traffic: RecordedTraffic | None = None,
    ) -> None:
        """Without `traffic` no query is recorded."""
        self._router = router
        self._pool = pool
        self._counts = counts
        self._traffic = traffic

    @override
    def needs_decision(self, namespace: str) -> NeedsDecision:
        if not self._router.is_ready:
            return NeedsDecision.UNKNOWN
        recorded = self._traffic is not None and self._traffic.is_on(namespace)
        return NeedsDecision.SOME if recorded or self._router.has_edits(namespace) else NeedsDecision.NONE

    @override
    async def decide(self, namespace: str, endpoint: Endpoint, body: RequestBody, sender: str) -> RequestPlan:
        loop = asyncio.get_running_loop()
        self._counts.open += 1
        try:
            plan = await loop.run_in_executor(
                self._pool, plan_request, self._router, namespace, endpoint, body, sender
            )
        finally:
            self._counts.open -= 1
        if self._traffic is not None and plan.query is not None:
            self._traffic.note(namespace, plan.query)
        return plan
