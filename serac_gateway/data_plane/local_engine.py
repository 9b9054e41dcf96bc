"""The engine of the model process: router, counterfactual model, API keys and earlier responses, all here."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import aclosing, suppress
from functools import partial

import msgspec
from typing_extensions import override

from serac_gateway.auth.authenticator import Authenticator
from serac_gateway.auth.principals import Principal
from serac_gateway.config.model import ModelsConfig, RoutingConfig
from serac_gateway.data_plane.engine import Engine, NeedsDecision
from serac_gateway.data_plane.joined_answers import joined_answers
from serac_gateway.data_plane.plan import AnswerTask, RequestPlan, plan_request
from serac_gateway.data_plane.protocols.answers import ChoicePiece
from serac_gateway.data_plane.protocols.base import CompletionRequest
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.data_plane.response_memory import ResponseMemory
from serac_gateway.domain.audiences import Caller, Labels
from serac_gateway.domain.edits import Edit, EditKind, by_name_in
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.headers import Headers
from serac_gateway.domain.queries import Query
from serac_gateway.domain.wanted_forms import WantedForm
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.errors import ModelUnavailableError, NamespaceQuarantinedError
from serac_gateway.models.counterfactual.base import CounterfactualModel
from serac_gateway.models.forms.answers import formed_answer
from serac_gateway.models.forms.reader import FormReader
from serac_gateway.models.language_models.base import Piece, Sampling
from serac_gateway.models.language_models.threads import ThreadItems
from serac_gateway.observability.counts import EngineCounts
from serac_gateway.routing.guarded_values import GuardedValues, guarded_values, log_unguarded
from serac_gateway.routing.router import EditRouter
from serac_gateway.routing.several_questions import PartialAnswer
from serac_gateway.stores.traffic_recorder import TrafficRecorder

MAX_GENERATED_CHOICES = 8
"""Of one answer; further ones repeat these, for answers to a fact hardly differ and each takes the model."""

log = logging.getLogger(__name__)


class LocalEngine(Engine):
    """Decides on the threads of `decision_pool`, answers on those of `answer_pool`.

    At most `config.decision_threads + config.max_queued_decisions` decisions and
    at most `config.answer_threads + config.max_queued_answers` answers are open at a time.
    """

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        router: EditRouter,
        active_edits: ActiveEdits,
        model: CounterfactualModel,
        decision_pool: Executor,
        answer_pool: Executor,
        config: ModelsConfig,
        responses: ResponseMemory,
        counts: EngineCounts,
        traffic: TrafficRecorder | None = None,
        reader: FormReader | None = None,
        decision_timeout_s: float = RoutingConfig().decision_timeout_s,
    ) -> None:
        """Engines that share pools share `counts` too: the limits are on their work together.

        Without `traffic` no query is recorded, without `reader` no form is read that a request asks for. A
        decision, with its wait for a thread, may take `decision_timeout_s` seconds.
        """
        self._authenticator = authenticator
        self._router = router
        self._active_edits = active_edits
        self._model = model
        self._decision_pool = decision_pool
        self._answer_pool = answer_pool
        self._config = config
        self._decision_timeout_s = decision_timeout_s
        self._max_open_decisions = config.decision_threads + config.max_queued_decisions
        self._max_open_answers = config.answer_threads + config.max_queued_answers
        self._responses = responses
        self._counts = counts
        self._guarded: dict[str, tuple[tuple[Edit, ...], GuardedValues]] = {}
        self._traffic = traffic
        self._reader = reader

    @override
    def authenticate(self, headers: Headers) -> Awaitable[Principal]:
        return self._authenticator.authenticate(headers)  # not async itself: every request comes through here

    @override
    def needs_decision(self, namespace: str) -> NeedsDecision:
        if namespace in self._active_edits.quarantine:
            return NeedsDecision.SUPPRESSIONS  # as far as anybody knows; `decide` says the rest
        if not self._router.is_ready(namespace):
            return NeedsDecision.UNKNOWN
        if self._router.has_suppressions(namespace):
            return NeedsDecision.SUPPRESSIONS
        recorded = self._traffic is not None and self._traffic.is_on(namespace)
        return NeedsDecision.SOME if recorded or self._router.has_edits(namespace) else NeedsDecision.NONE

    @override
    async def guarded_values(self, namespace: str, known: GuardedValues | None) -> GuardedValues:
        edits = self._active_edits.suppressions(namespace)
        made = self._guarded.get(namespace)
        if made is None or made[0] is not edits:
            values = await asyncio.to_thread(guarded_values, edits)  # may open the vocabulary
            log_unguarded(edits)
            made = self._guarded[namespace] = (
                edits, GuardedValues(version=secrets.token_hex(8), values=values)
            )  # fmt: skip
        return made[1] if known is None or known.version != made[1].version else known

    @override
    async def decide(
        self, namespace: str, endpoint: Endpoint, body: RequestBody, caller: Caller
    ) -> RequestPlan:
        if namespace in self._active_edits.quarantine:
            raise NamespaceQuarantinedError(
                f"something stored of namespace {namespace!r} is damaged, so nobody knows which questions"
                " must not be answered there; its operator mends it with `serac store repair`",
                details={"reason": "namespace quarantined"},
            )
        if self._counts.open_decisions >= self._max_open_decisions:
            limit = self._max_open_decisions
            raise _unavailable("decision queue full", f"{limit} decisions are open already; try again")
        deciding = self._decision_pool.submit(self._plan, namespace, endpoint, body, caller)
        self._counts.open_decisions += 1
        # A decision that has begun cannot be stopped: it counts until its thread is free again.
        deciding.add_done_callback(partial(self._note_decided, asyncio.get_running_loop()))
        try:
            async with asyncio.timeout(self._decision_timeout_s):
                plan = await asyncio.wrap_future(deciding)
        except TimeoutError as exc:
            limit_s = self._decision_timeout_s
            raise _unavailable("decision timeout", f"the decision took longer than {limit_s:g} s") from exc
        if self._traffic is not None and plan.query is not None:
            self._traffic.note(namespace, plan.query, caller.labels)
            if plan.trial is not None and self._traffic.is_on(namespace):
                plan = msgspec.structs.replace(plan, keeps_reply=True)
        return plan

    def _plan(self, namespace: str, endpoint: Endpoint, body: RequestBody, caller: Caller) -> RequestPlan:
        plan = plan_request(self._router, namespace, endpoint, body, caller, reader=self._reader)
        if plan.task is None or plan.task.edit.kind is not EditKind.SUPPRESSION:
            return plan
        task = msgspec.structs.replace(
            plan.task,
            prompt_tokens=self._count_tokens(*plan.task.query.context, plan.task.query.text),
            answer_tokens=self._count_tokens(plan.task.edit.target_new),
        )
        return msgspec.structs.replace(plan, task=task)

    def _count_tokens(self, *texts: str) -> int:
        """For the report on a refusal, which needs no model: without its tokenizer words are counted."""
        try:
            return sum(self._model.count_tokens(text) for text in texts)
        except Exception:
            log.warning("the model's tokenizer failed; words are counted instead", exc_info=True)
            return sum(len(text.split()) for text in texts)

    @override
    async def answer(
        self, task: AnswerTask, *, on_tokens: Callable[[int], None] = lambda count: None
    ) -> AsyncGenerator[ChoicePiece, None]:
        if self._counts.open_answers >= self._max_open_answers:
            limit = self._max_open_answers
            raise _unavailable("answer queue full", f"{limit} answers are open already; try again")
        deadline = asyncio.get_running_loop().time() + self._config.answer_timeout_s
        self._counts.open_answers += 1
        try:
            async with aclosing(
                ThreadItems(self._answer_pool, lambda cancelled: self._generate(task, cancelled))
            ) as pieces:
                while True:
                    async with asyncio.timeout_at(deadline):
                        generated = await anext(pieces, None)
                    if generated is None:
                        return
                    self._counts.answer_tokens += generated.piece.tokens
                    on_tokens(generated.piece.tokens)
                    yield generated
        except TimeoutError as exc:
            limit_s = self._config.answer_timeout_s
            raise _unavailable("answer timeout", f"the answer took longer than {limit_s:g} s") from exc
        finally:
            self._counts.open_answers -= 1

    def _note_decided(self, loop: asyncio.AbstractEventLoop, _: object) -> None:
        """Count a decision as done, from the thread that made it."""

        def note() -> None:
            self._counts.open_decisions -= 1

        with suppress(RuntimeError):  # the loop is closed: nothing is counted any more
            loop.call_soon_threadsafe(note)

    async def answer_text(self, edit: Edit, query: Query) -> str:
        """The answer as one text, stripped, with default parameters. Raises as `answer` does."""
        request = CompletionRequest(endpoint=Endpoint.CHAT, model="")
        async with aclosing(self.answer(AnswerTask(edit=edit, query=query, request=request))) as pieces:
            return "".join([generated.piece.text async for generated in pieces]).strip()

    @override
    async def remember_response(
        self, namespace: str, request: RequestBody, response_id: str, answer: str, labels: Labels
    ) -> None:
        self._responses.remember(namespace, request, response_id, answer, labels)

    @override
    async def with_earlier_turns(self, namespace: str, request: RequestBody, labels: Labels) -> RequestBody:
        return self._responses.with_earlier_turns(namespace, request, labels)

    def _generate(self, task: AnswerTask, cancelled: Callable[[], bool]) -> Iterator[ChoicePiece]:
        parts = [PartialAnswer(edit=task.edit, query=task.query), *task.further]
        for edit in (part.edit for part in parts):
            if self._active_edits.current(edit.namespace, edit.id) != edit:
                raise _unavailable(
                    "edit out of force", f"edit {edit.id!r} was changed while its answer waited"
                )
        read = (*task.query.context, *(part.query.text for part in parts))
        prompt_tokens = sum(self._model.count_tokens(text) for text in read)
        choices = task.request.choices
        generated: list[list[Piece]] = []
        for choice in range(min(choices, MAX_GENERATED_CHOICES)):
            generated.append([])
            for piece in self._choice(parts, task, choice, cancelled):
                generated[choice].append(piece)
                yield ChoicePiece(choice=choice, piece=piece, prompt_tokens=prompt_tokens)
        for choice in range(MAX_GENERATED_CHOICES, choices):
            for piece in generated[choice % MAX_GENERATED_CHOICES]:
                yield ChoicePiece(choice=choice, piece=piece, prompt_tokens=prompt_tokens)

    def _choice(
        self,
        parts: Sequence[PartialAnswer],
        task: AnswerTask,
        choice: int,
        cancelled: Callable[[], bool],
    ) -> Iterator[Piece]:
        request, form = task.request, task.form
        if choice:  # nothing can be left to the base model any more
            form = msgspec.structs.replace(form, falls_back=True)
        if len(parts) == 1:
            sampling = self._sampling(parts, request, choice)
            return self._part(parts[0], form, sampling, choice, cancelled)
        unlimited = msgspec.structs.replace(request, max_tokens=None, stop=())
        answers = [
            partial(self._part, part, form, self._sampling([part], unlimited, choice), choice, cancelled)
            for part in parts
        ]
        return joined_answers(answers, self._sampling(parts, request, choice), self._model)

    def _part(
        self,
        part: PartialAnswer,
        form: WantedForm,
        sampling: Sampling,
        choice: int,
        cancelled: Callable[[], bool],
    ) -> Iterator[Piece]:
        edit, query = part.edit, part.query
        named = by_name_in(" ".join((*query.context, query.text)), edit)  # the model knows no other names
        may_decline = choice == 0 and self._router.may_decline(edit, query)
        return formed_answer(
            self._model, named, query, sampling, form, may_decline=may_decline, cancelled=cancelled
        )

    def _sampling(self, parts: Sequence[PartialAnswer], request: CompletionRequest, choice: int) -> Sampling:
        """The request's parameters within our limit of tokens; greedy unless it names a temperature.

        The limit is on the text that the model makes up for each part. The tokens of `target_new` come on top
        of it, except for an instruction, so that it does not cut the text that the edit states.
        """
        limit = len(parts) * self._config.max_answer_tokens
        for edit in (part.edit for part in parts):
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
