"""The decision about a request: `EditRouter.decide` reads as the decision runs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from operator import attrgetter

import msgspec
import numpy as np

from serac_gateway.config.model import (
    CompositePolicy,
    DeclinePolicy,
    InstructionPolicy,
    RoutingConfig,
    TaskPolicy,
    UnreadablePolicy,
)
from serac_gateway.domain.edits import Edit, EditKind, EditState, by_name_in, wordings
from serac_gateway.domain.passages import SpokenText
from serac_gateway.domain.queries import Query, asks_several_things
from serac_gateway.edit_index.source import EditSource
from serac_gateway.models.classifiers.base import Candidate, Classification, ScopeClassifier
from serac_gateway.models.classifiers.spelling import asks_the_same
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.routing.retrieval import retrieve, segments
from serac_gateway.routing.suppressions import SuppressionSearch

_DEFAULTS = RoutingConfig()
MAX_CONTEXT_EDITS = 3
"""The most edits that a request to the base model states."""
_RIVAL_LOGITS = 5.0
"""The most that the logits of two edits of one question differ for a query; an edit that is asked for in its
own words, whose logit is set, is displaced by none."""
_MAX_KNOWN_PAIRS = 4_096
"""Pairs of edits of which it is remembered whether they ask the same."""


class Route(StrEnum):
    """The model that answers, and the form in which it gets the request."""

    BASE = "base"
    """The base model; request and reply pass unchanged."""
    COUNTERFACTUAL = "counterfactual"
    """The counterfactual model, here."""
    IN_CONTEXT = "in_context"
    """The base model, with the edit put in its context."""
    BYPASS = "bypass"
    """The base model, unchanged, because the request cannot be decided or answered here."""


class ScoredCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate with its classification."""

    edit: Edit
    form: str
    similarity: float
    scope_probability: float
    depends_probability: float | None = None
    log_order: tuple[int, int] = (0, 0)
    """See `Candidate.log_order`."""


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that each stage of a decision took; those of a batch are shared equally among its queries."""

    encode_s: float = 0.0
    search_s: float = 0.0
    classify_s: float = 0.0


class RouteDecision(msgspec.Struct, frozen=True, kw_only=True):
    """The route of a query, and the edits and numbers behind it.

    Which edits that concerns is answered here and nowhere else: `governing_edits`, `scoped_edit`.
    """

    route: Route
    reason: str
    """A fixed word or two for logs and metrics: "in scope", "no candidate", "tools required", …"""
    edit: Edit | None = None
    """The edit that applies and in whose scope the query is; None if it is in none's."""
    withheld: Edit | None = None
    """The edit on trial that would govern if it were live: a shadow, or a canary without this user."""
    similarity: float | None = None
    """Of the edit chosen, else of the nearest candidate; None if there is none."""
    scope_probability: float | None = None
    """Likewise."""
    scope_threshold: float | None = None
    context_edits: tuple[Edit, ...] = ()
    """The edits that the request to the base model states, most probable first; only of Route.IN_CONTEXT."""
    candidates: tuple[ScoredCandidate, ...] = ()
    """Most probable first."""
    question: str | None = None
    """The passage of a longer text that was decided on; None: the query's own text."""
    timings: Timings = Timings()

    @property
    def in_scope(self) -> bool:
        """Whether the query is in the scope of an edit that applies."""
        return self.edit is not None

    @property
    def refusal(self) -> Edit | None:
        """The suppression with whose text the request is refused; None: it is not."""
        if self.route is not Route.COUNTERFACTUAL or self.edit is None:
            return None
        return self.edit if self.edit.kind is EditKind.SUPPRESSION else None

    @property
    def governing_edits(self) -> tuple[Edit, ...]:
        """The edits that decide on the answer: those put in context, else the one in scope; may be empty.

        A response names them in its headers. They have acted only if the request went the way decided: see
        `FinishedRequest.applied_edits`.
        """
        if self.context_edits:
            return self.context_edits
        return () if self.edit is None else (self.edit,)

    @property
    def scoped_edit(self) -> Edit | None:
        """The edit in whose scope the query is, also if it is only on trial; None if it is in none's.

        The one that logs, traces and feedback name.
        """
        return self.edit or self.withheld


class EditRouter:
    """Decides for queries. Sync and thread-safe; called on worker threads only."""

    def __init__(
        self,
        *,
        encoder: Encoder,
        active_edits: EditSource,
        classifier: ScopeClassifier,
        config: RoutingConfig = _DEFAULTS,
    ) -> None:
        self._encoder = encoder
        self._active_edits = active_edits
        self._classifier = classifier
        self._config = config
        self._max_candidates = config.candidates
        self._suppressions = SuppressionSearch(
            encoder=encoder, edits=active_edits, classifier=classifier, limit=config.candidates
        )
        self._same_question: dict[frozenset[_Version], bool] = {}
        scope, depends = config.scope_threshold, config.depends_threshold
        self._scope_threshold = classifier.scope_threshold if scope is None else scope
        self._depends_threshold = classifier.depends_threshold if depends is None else depends

    @property
    def scope_threshold(self) -> float:
        """A query is in scope iff its scope_probability, in 0..1, is at least this."""
        return self._scope_threshold

    @property
    def similarity_floor(self) -> float:
        """A query less similar to every form of an edit (cosine, -1..1) is out of the edit's scope."""
        return self._classifier.similarity_floor

    def over(self, edits: EditSource) -> EditRouter:
        """A router with the same models and configuration, and other edits."""
        return EditRouter(
            encoder=self._encoder, active_edits=edits, classifier=self._classifier, config=self._config
        )

    def is_ready(self, namespace: str) -> bool:
        """Whether the namespace's stored edits are loaded, so that without edits it is known to have none."""
        return self._active_edits.is_loaded(namespace)

    def has_edits(self, namespace: str) -> bool:
        """Whether the namespace has an edit that could apply; a look-up, cheap enough for the event loop."""
        return self._active_edits.count(namespace) > 0

    def has_suppressions(self, namespace: str) -> bool:
        """Whether a suppression of the namespace is in force; a look-up as well."""
        return bool(self._active_edits.suppressions(namespace))

    def refuses_unreadable(self, namespace: str) -> bool:
        """Whether a request that cannot be read is refused in the namespace, or passed on."""
        suppressions = self.has_suppressions(namespace)
        policy = self._config.on_unreadable_of(namespace, suppressions=suppressions)
        return policy is UnreadablePolicy.REFUSE

    def passes_unreadable(self, namespace: str) -> bool:
        """Whether the configuration says that such a request is passed on, whatever the edits are."""
        return self._config.on_unreadable_of(namespace, suppressions=True) is UnreadablePolicy.PASS

    def may_decline(self, edit: Edit, query: Query) -> bool:
        """Whether the counterfactual model may leave a query in scope of the edit to the base model.

        The editor decides what the edit's own wordings are answered with.
        """
        if edit.kind is not EditKind.FACT:
            return False
        if self._config.on_declined_of(edit.namespace) is DeclinePolicy.ANSWER:
            return False
        return not any(asks_the_same(wording, query.text) for wording in wordings(edit))

    def decide(
        self, namespace: str, queries: Sequence[Query], *, caller: str | None = None
    ) -> list[RouteDecision]:
        """One decision a query, in order.

        Canaries are applied by `caller`: see `Edit.is_applied_to`.

        Raises:
            ModelUnavailableError: Encoder or classifier failed.
        """
        if not self.has_edits(namespace):
            return [
                RouteDecision(
                    route=Route.BASE, reason="no edits", scope_threshold=self._scope_threshold
                )
                for _ in queries
            ]  # fmt: skip
        queries = [self._as_read(namespace, query) for query in queries]
        retrieved = retrieve(
            namespace,
            queries,
            encoder=self._encoder,
            edits=self._active_edits,
            floor=self._classifier.similarity_floor,
            limit=self._max_candidates,
            margin=self._classifier.similarity_margin,
            unlikely=self._classifier.unlikely_similarity,
        )
        share = 1.0 / max(1, len(queries))
        timings = Timings(encode_s=retrieved.encode_s * share, search_s=retrieved.search_s * share)
        decisions = [
            self._decide_query(namespace, query, row, timings, caller)
            for query, row in zip(queries, retrieved.candidates_B, strict=True)
        ]
        return [
            self._decide_questions(namespace, query.questions, decision, caller)
            if query.questions and not decision.in_scope
            else decision
            for query, decision in zip(queries, decisions, strict=True)
        ]

    def decide_among(self, namespace: str, query: Query, candidates: Sequence[Candidate]) -> RouteDecision:
        """The decision on a query whose candidates are known, most similar first; canaries are withheld.

        Raises:
            ModelUnavailableError: The classifier failed.
        """
        read = self._as_read(namespace, query)
        return self._decide_query(namespace, read, list(candidates), Timings(), None)

    def _as_read(self, namespace: str, query: Query) -> Query:
        """The query with the system prompt, or without it where the namespace answers under any."""
        if self._config.tasks_of(namespace) is TaskPolicy.ANSWER:
            return msgspec.structs.replace(query, instructions="")
        return query

    def decide_suppression(
        self,
        namespace: str,
        texts: Sequence[SpokenText],
        *,
        caller: str | None = None,
        decided: Query | None = None,
    ) -> RouteDecision | None:
        """The decision that one of `texts`, of any length, is in the scope of a suppression; None: none is.

        A passage that is the query `decided`, without earlier turns, is left out.

        Raises:
            ModelUnavailableError: Encoder or classifier failed.
        """
        begun = time.perf_counter()
        known = "" if decided is None or decided.context else " ".join(decided.text.split())
        match = self._suppressions.first_in_scope(
            namespace, texts, threshold=self._scope_threshold, caller=caller, without=known
        )
        if match is None:
            return None
        scored = ScoredCandidate(
            edit=match.candidate.edit,
            form=match.candidate.form,
            similarity=match.candidate.similarity,
            scope_probability=match.classification.scope_probability,
            depends_probability=match.classification.depends_probability,
            log_order=match.candidate.log_order,
        )
        classify_s = match.classify_s
        return RouteDecision(
            route=Route.COUNTERFACTUAL,
            reason="in scope",
            edit=scored.edit,
            similarity=scored.similarity,
            scope_probability=scored.scope_probability,
            scope_threshold=self._scope_threshold,
            candidates=(scored,),
            question=match.passage,
            timings=Timings(encode_s=time.perf_counter() - begun - classify_s, classify_s=classify_s),
        )

    def _decide_questions(
        self, namespace: str, questions: Sequence[str], whole: RouteDecision, caller: str | None
    ) -> RouteDecision:
        """`whole`, or the decision on the likeliest of the `questions` in its text if one is in scope."""
        decisions = self.decide(namespace, [Query(text=question) for question in questions], caller=caller)
        in_scope = [
            msgspec.structs.replace(decision, question=question)
            for question, decision in zip(questions, decisions, strict=True)
            if decision.in_scope
        ]
        return max(in_scope, key=lambda decision: decision.scope_probability or 0.0, default=whole)

    def _depends_threshold_in(self, namespace: str) -> float | None:
        """An answer depends on an edit from this probability on; None: the policy ignores dependence."""
        in_context = self._config.composite_of(namespace) is CompositePolicy.IN_CONTEXT
        return self._depends_threshold if in_context else None

    def _decide_query(
        self,
        namespace: str,
        query: Query,
        candidates: list[Candidate],
        timings: Timings,
        caller: str | None,
    ) -> RouteDecision:
        threshold = self._scope_threshold
        if not candidates:
            return RouteDecision(
                route=Route.BASE, reason="no candidate", scope_threshold=threshold, timings=timings
            )
        begun = time.perf_counter()
        classifications_K = self._classified(query, candidates)
        timings = msgspec.structs.replace(timings, classify_s=time.perf_counter() - begun)
        scored = [
            ScoredCandidate(
                edit=candidate.edit,
                form=candidate.form,
                similarity=candidate.similarity,
                scope_probability=classification.scope_probability,
                depends_probability=classification.depends_probability,
                log_order=candidate.log_order,
            )
            for candidate, classification in zip(candidates, classifications_K, strict=True)
        ]
        order = np.argsort([-candidate.scope_probability for candidate in scored], kind="stable")
        ranked = tuple(scored[position] for position in order)
        applied = tuple(candidate for candidate in ranked if candidate.edit.is_applied_to(caller))
        chosen = self._chosen(applied)
        governs = chosen if len(applied) == len(ranked) else self._chosen(ranked)
        withheld = None if governs is None or governs in applied else governs.edit
        is_stated = chosen is not None and self._is_stated(chosen.edit)
        if is_stated:  # the base model must not see the question
            suppressing = self._in_scope(applied, EditKind.SUPPRESSION)
            chosen = suppressing[0] if suppressing else chosen
        nearest = chosen or ranked[0]
        depended = self._depended_on(applied, chosen, self._depends_threshold_in(namespace))
        policy = self._config.composite_of(namespace)
        route, reason = _route(policy, chosen, depended, query)
        if is_stated and chosen is not None and chosen.edit.kind is EditKind.INSTRUCTION:
            route, reason = Route.IN_CONTEXT, "instruction"
            depended = self._stated_with(chosen, applied, depended)
        if withheld is not None and (chosen, route) == (None, Route.BASE):
            reason = "shadow edit" if withheld.state is EditState.SHADOW else "not in the canary's share"
        return RouteDecision(
            route=route,
            reason=reason,
            edit=chosen.edit if chosen else None,
            withheld=withheld,
            context_edits=depended if route is Route.IN_CONTEXT else (),
            similarity=nearest.similarity,
            scope_probability=nearest.scope_probability,
            scope_threshold=threshold,
            candidates=ranked,
            timings=timings,
        )

    def _classified(self, query: Query, candidates: Sequence[Candidate]) -> list[Classification]:
        """The classification of every candidate, of a suppression that of the likeliest segment of the query.

        A question that must not be answered is often wrapped in another task: spelt, reversed, as JSON. The
        whole is then out of scope, and the base model would answer the question inside.
        """
        classifications_K = self._classifier.classify(query, candidates)
        missed = [
            position
            for position, (candidate, whole) in enumerate(zip(candidates, classifications_K, strict=True))
            if candidate.edit.kind is EditKind.SUPPRESSION and whole.scope_probability < self._scope_threshold
        ]
        if not missed:
            return classifications_K
        suppressions = [candidates[position] for position in missed]
        for segment in segments(query.text):
            of_segment = self._classifier.classify(Query(text=segment), suppressions)
            for position, classification in zip(missed, of_segment, strict=True):
                classifications_K[position] = max(
                    classifications_K[position], classification, key=attrgetter("scope_probability")
                )
        return classifications_K

    def _chosen(self, ranked: Sequence[ScoredCandidate]) -> ScoredCandidate | None:
        """The candidate whose edit governs: the most probable one, or the newest that asks the same.

        Probability cannot settle which of two edits of one question is meant: the newer one is. Whether two
        edits ask the same is a matter of the edits, not of the request: see `_asks_the_same`. All other
        edits, such as those of a sibling attribute, displace nothing however probable they are.
        """
        if not ranked or ranked[0].scope_probability < self._scope_threshold:
            return None
        best = ranked[0]
        rivals = [
            rival
            for rival in ranked[1:]
            if rival.scope_probability >= self._scope_threshold
            and _age(rival) > _age(best)
            and _logit(best) - _logit(rival) <= _RIVAL_LOGITS
            and self._asks_the_same(rival.edit, best.edit)
        ]
        return max((best, *rivals), key=_age)

    def _asks_the_same(self, left: Edit, right: Edit) -> bool:
        """Whether each of two edits answers the other's prompt; remembered, as versions do not change."""
        pair = frozenset({_version(left), _version(right)})
        known = self._same_question.get(pair)
        if known is None:
            known = self._answers(left, right.prompt) and self._answers(right, left.prompt)
            if len(self._same_question) >= _MAX_KNOWN_PAIRS:
                self._same_question.clear()
            self._same_question[pair] = known
        return known

    def _depended_on(
        self, ranked: Sequence[ScoredCandidate], chosen: ScoredCandidate | None, threshold: float | None
    ) -> tuple[Edit, ...]:
        """The edits on which a right answer depends: the one in scope, then others by probability."""
        others = [] if threshold is None else [
            candidate
            for candidate in ranked
            if (candidate.depends_probability or 0.0) >= threshold and candidate is not chosen
        ]  # fmt: skip
        others.sort(key=lambda candidate: -(candidate.depends_probability or 0.0))
        first = [] if chosen is None else [chosen]
        return tuple(candidate.edit for candidate in (*first, *others)[:MAX_CONTEXT_EDITS])

    def _is_stated(self, edit: Edit) -> bool:
        """Whether a request in its scope goes to the base model with the edit, an instruction, stated."""
        policy = self._config.instructions_of(edit.namespace)
        return edit.kind is EditKind.INSTRUCTION and policy is InstructionPolicy.IN_CONTEXT

    def _stated_with(
        self, instruction: ScoredCandidate, ranked: Sequence[ScoredCandidate], depended: Sequence[Edit]
    ) -> tuple[Edit, ...]:
        """The instruction, the fact and other instructions in scope, then what the answer depends on."""
        fact = self._chosen([candidate for candidate in ranked if candidate.edit.kind is EditKind.FACT])
        instructions = self._in_scope(ranked, EditKind.INSTRUCTION)
        in_scope = [scored.edit for scored in (instruction, fact, *instructions) if scored is not None]
        by_id = {edit.id: edit for edit in (*in_scope, *depended)}
        return tuple(by_id.values())[:MAX_CONTEXT_EDITS]

    def _in_scope(self, ranked: Sequence[ScoredCandidate], kind: EditKind) -> list[ScoredCandidate]:
        """Those of that kind in whose scope the query is, in order."""
        return [
            candidate
            for candidate in ranked
            if candidate.scope_probability >= self._scope_threshold and candidate.edit.kind is kind
        ]

    def _answers(self, edit: Edit, prompt: str) -> bool:
        """Whether `prompt`, taken for a query, is in the scope of `edit`, by the name that it has there."""
        form = by_name_in(prompt, edit).prompt
        vectors_2D = self._encoder.encode([prompt, form])
        similarity = float(vectors_2D[0] @ vectors_2D[1])
        candidate = Candidate(edit=edit, form=form, similarity=similarity)
        (classification,) = self._classifier.classify(Query(text=prompt), [candidate])
        return classification.scope_probability >= self._scope_threshold


def _route(
    policy: CompositePolicy, chosen: ScoredCandidate | None, depended: Sequence[Edit], query: Query
) -> tuple[Route, str]:
    """The route and its reason."""
    if chosen is None:
        if depended and policy is CompositePolicy.IN_CONTEXT:
            return Route.IN_CONTEXT, "depends on an edit"
        return Route.BASE, "below threshold"
    if (
        policy is CompositePolicy.COUNTERFACTUAL_ONLY
        or chosen.edit.kind is EditKind.SUPPRESSION  # the base model must not see the question
        or not asks_several_things(query.text)
    ):
        return Route.COUNTERFACTUAL, "in scope"
    if policy is CompositePolicy.IN_CONTEXT:
        return Route.IN_CONTEXT, "asks several things"
    return Route.BASE, "asks several things"


_Version = tuple[str, str, int, datetime]


def _version(edit: Edit) -> _Version:
    """Names one version: ids belong to a namespace, and begin again at version 1 after a purge."""
    return edit.namespace, edit.id, edit.version, edit.created_at


def _logit(candidate: ScoredCandidate) -> float:
    probability = min(max(candidate.scope_probability, 1e-9), 1 - 1e-9)
    return math.log(probability / (1 - probability))


def _age(candidate: ScoredCandidate) -> tuple[tuple[int, int], datetime, str]:
    """Sort key: edits whose current version is newer come later.

    The log has the order. Times, which clocks of gateways made, and ids settle only a tie, as between edits
    that were never in a log.
    """
    return candidate.log_order, candidate.edit.created_at, candidate.edit.id
