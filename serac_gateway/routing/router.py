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
from serac_gateway.domain.audiences import UNKNOWN_CALLER, Caller, Labels, lies_within, specificity
from serac_gateway.domain.edits import Edit, EditKind, EditState, by_name_in, wordings
from serac_gateway.domain.parts import Part, is_quoted, parts_of, weight
from serac_gateway.domain.passages import SpokenText
from serac_gateway.domain.queries import Query
from serac_gateway.domain.wanted_forms import FormKind
from serac_gateway.edit_index.source import EditSource
from serac_gateway.models.classifiers.base import Candidate, Classification, ScopeClassifier
from serac_gateway.models.classifiers.spelling import asks_the_same
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.forms.reader import FormReader
from serac_gateway.routing.retrieval import Retrieved, retrieve, segments
from serac_gateway.routing.several_questions import (
    ASKS_MORE,
    CUT,
    LEAST_QUESTION,
    PERHAPS,
    PartialAnswer,
    asks_more,
    cut_near,
    is_in_one_part,
    part_queries,
)
from serac_gateway.routing.suppressions import SuppressionSearch
from serac_gateway.routing.thresholds import Thresholds, thresholds_in_force

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
    scope_threshold: float
    """Of this edit: suppressions have one of their own."""
    depends_probability: float | None = None
    log_order: tuple[int, int] = (0, 0)
    """See `Candidate.log_order`."""

    @property
    def in_scope(self) -> bool:
        """Whether the query is in the scope of the edit."""
        return self.scope_probability >= self.scope_threshold


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
    """Likewise; of facts if there is no candidate."""
    context_edits: tuple[Edit, ...] = ()
    """The edits that the request to the base model states, most probable first; only of Route.IN_CONTEXT."""
    candidates: tuple[ScoredCandidate, ...] = ()
    """Most probable first."""
    parts: tuple[PartialAnswer, ...] = ()
    """Of a request that asks several things: what each edit in scope answers, in order, each edit once."""
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
        """The edits that decide on the answer: those put in context, else those in scope; may be empty.

        A response names them in its headers. They have acted only if the request went the way decided: see
        `FinishedRequest.applied_edits`.
        """
        if self.context_edits:
            return self.context_edits
        if self.parts and self.route is Route.COUNTERFACTUAL:
            return tuple(part.edit for part in self.parts)
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
        reader: FormReader | None = None,
    ) -> None:
        """Without `reader` words about the form of an answer are taken for a part of the question."""
        self._reader = reader
        self._encoder = encoder
        self._active_edits = active_edits
        self._classifier = classifier
        self._config = config
        self._max_candidates = config.candidates
        self._suppressions = SuppressionSearch(
            encoder=encoder, edits=active_edits, classifier=classifier, limit=config.candidates
        )
        self._same_question: dict[frozenset[_Version], bool] = {}
        self._thresholds = thresholds_in_force(config, classifier)
        depends = config.depends_threshold
        self._depends_threshold = classifier.depends_threshold if depends is None else depends

    @property
    def thresholds(self) -> Thresholds:
        """A query is in scope of an edit iff its scope_probability, in 0..1, is at least the edit's."""
        return self._thresholds

    @property
    def similarity_floor(self) -> float:
        """A query less similar to every form of an edit (cosine, -1..1) is out of the edit's scope."""
        return self._classifier.similarity_floor

    def over(self, edits: EditSource) -> EditRouter:
        """A router with the same models and configuration, and other edits."""
        return EditRouter(
            encoder=self._encoder,
            active_edits=edits,
            classifier=self._classifier,
            config=self._config,
            reader=self._reader,
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

    def composite_policy(self, namespace: str) -> CompositePolicy:
        """What happens in the namespace to a request that edits alone do not answer."""
        return self._config.composite_of(namespace)

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
        self, namespace: str, queries: Sequence[Query], *, caller: Caller = UNKNOWN_CALLER
    ) -> list[RouteDecision]:
        """One decision a query, in order.

        Edits for other audiences are as if absent, and canaries are applied by `caller`: see
        `Edit.is_applied_to`.

        Raises:
            ModelUnavailableError: Encoder or classifier failed.
        """
        if not self.has_edits(namespace):
            return [
                RouteDecision(route=Route.BASE, reason="no edits", scope_threshold=self._thresholds.scope)
                for _ in queries
            ]
        queries = [self._as_read(namespace, query) for query in queries]
        decisions = self._decide_each(namespace, queries, caller)
        return [
            self._decide_questions(namespace, query.questions, decision, caller)
            if query.questions and not decision.in_scope
            else self._decide_without_form(
                namespace, query, self._decide_parts(namespace, query, decision, caller), caller
            )
            for query, decision in zip(queries, decisions, strict=True)
        ]

    def _decide_each(self, namespace: str, queries: Sequence[Query], caller: Caller) -> list[RouteDecision]:
        """One decision a query as a whole, in order."""
        retrieved = self._retrieved(namespace, queries, labels=caller.labels)
        share = 1.0 / max(1, len(queries))
        timings = Timings(encode_s=retrieved.encode_s * share, search_s=retrieved.search_s * share)
        return [
            self._decide_query(namespace, query, row, timings, caller)
            for query, row in zip(queries, retrieved.candidates_B, strict=True)
        ]

    def for_others(
        self, namespace: str, queries: Sequence[Query], caller: Caller
    ) -> list[tuple[ScoredCandidate, ...]]:
        """Of each query the edits in whose scope it is, but for audiences that `caller` is not in.

        For explanations. Raises as `decide` does.
        """
        if not self._active_edits.has_audiences(namespace):
            return [() for _ in queries]
        read = [self._as_read(namespace, query) for query in queries]
        retrieved_B = self._retrieved(namespace, read, labels=None).candidates_B
        others_B = [
            [candidate for candidate in row if not candidate.edit.is_for(caller.labels)]
            for row in retrieved_B
        ]
        return [
            tuple(
                candidate
                for candidate in self._decide_query(namespace, query, others, Timings(), caller).candidates
                if candidate.in_scope
            )
            for query, others in zip(read, others_B, strict=True)
        ]

    def _retrieved(self, namespace: str, queries: Sequence[Query], *, labels: Labels | None) -> Retrieved:
        return retrieve(
            namespace,
            queries,
            encoder=self._encoder,
            edits=self._active_edits,
            floor=self._classifier.similarity_floor,
            limit=self._max_candidates,
            labels=labels,
            margin=self._classifier.similarity_margin,
            unlikely=self._classifier.unlikely_similarity,
        )

    def decide_among(
        self, namespace: str, query: Query, candidates: Sequence[Candidate], caller: Caller = UNKNOWN_CALLER
    ) -> RouteDecision:
        """The decision on a query whose candidates are known, most similar first.

        Raises:
            ModelUnavailableError: The classifier failed.
        """
        read = self._as_read(namespace, query)
        return self._decide_query(namespace, read, list(candidates), Timings(), caller)

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
        caller: Caller = UNKNOWN_CALLER,
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
            namespace, texts, threshold=self._thresholds.suppression, caller=caller, without=known
        )
        if match is None:
            return None
        scored = ScoredCandidate(
            edit=match.candidate.edit,
            form=match.candidate.form,
            similarity=match.candidate.similarity,
            scope_probability=match.classification.scope_probability,
            scope_threshold=self._thresholds.suppression,
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
            scope_threshold=scored.scope_threshold,
            candidates=(scored,),
            question=match.passage,
            timings=Timings(encode_s=time.perf_counter() - begun - classify_s, classify_s=classify_s),
        )

    def _decide_questions(
        self, namespace: str, questions: Sequence[str], whole: RouteDecision, caller: Caller
    ) -> RouteDecision:
        """`whole`, or the decision on the likeliest of the `questions` in its text if one is in scope."""
        decisions = self.decide(namespace, [Query(text=question) for question in questions], caller=caller)
        in_scope = [
            msgspec.structs.replace(decision, question=question)
            for question, decision in zip(questions, decisions, strict=True)
            if decision.in_scope
        ]
        return max(in_scope, key=lambda decision: decision.scope_probability or 0.0, default=whole)

    def _decide_parts(
        self, namespace: str, query: Query, whole: RouteDecision, caller: Caller
    ) -> RouteDecision:
        """`whole`, or the decision by parts if the query asks several things of which edits answer some.

        A message out of scope is read by parts only if signs show several questions and an edit is near.
        """
        parts = parts_of(query.text)
        if whole.refusal is not None or not whole.candidates:
            return whole
        are_several = sum(part.is_marked for part in parts) > 1
        if whole.edit is None:
            nearest = max(candidate.similarity for candidate in whole.candidates)
            if not are_several or nearest < self._classifier.unlikely_similarity:
                return whole
        elif any(asks_the_same(wording, query.text) for wording in wordings(whole.edit)):
            return whole
        elif len(parts) > 1 and not are_several:
            form, texts = _form_of(whole), [part.text for part in parts]
            if form is not None and is_in_one_part(texts, query.text, form, self._encoder):
                return whole
        decided = self._decided_parts(namespace, query, parts, whole, caller)
        refused = next((part for part in decided if part.decision.refusal is not None), None)
        if refused is not None:
            return msgspec.structs.replace(refused.decision, question=refused.query.text)
        applied = [candidate for candidate in whole.candidates if candidate.edit.is_applied_to(caller)]
        if suppressing := self._in_scope(applied, EditKind.SUPPRESSION):
            refusing = suppressing[0]
            return msgspec.structs.replace(
                whole,
                route=Route.COUNTERFACTUAL,
                reason="in scope",
                edit=refusing.edit,
                context_edits=(),
                similarity=refusing.similarity,
                scope_probability=refusing.scope_probability,
                scope_threshold=refusing.scope_threshold,
            )
        return self._composed(namespace, self._with_edits_of_whole(decided, whole, caller), whole)

    def _decide_without_form(
        self, namespace: str, query: Query, whole: RouteDecision, caller: Caller
    ) -> RouteDecision:
        """`whole`, or the decision on the query without what it says of the form of its answer.

        "… Write it all in capitals!" is read as another task than the question before it. Only beside a fact
        that is near, where the sentences behind the question ask for a form that answers here can have. With
        words left out of it a question asks something else, and in front stand the orders of helper prompts.
        """
        if self._reader is None or whole.route is not Route.BASE or whole.in_scope or not whole.candidates:
            return whole
        sentences = [part.text for part in parts_of(query.text)]
        if len(sentences) < 2:
            return whole
        nearest = max(whole.candidates, key=lambda candidate: candidate.similarity)
        if nearest.similarity < self._classifier.unlikely_similarity:
            return whole
        if nearest.edit.kind is not EditKind.FACT or not nearest.edit.is_applied_to(caller):
            return whole
        form = self._reader.read(query, nearest.edit)
        if form.question is None or form.is_plain or FormKind.OTHER in form.kinds:
            return whole
        asking = [part.text for part in parts_of(form.question)]
        if asking != sentences[: len(asking)]:
            return whole
        (stripped,) = self._decide_each(
            namespace, [msgspec.structs.replace(query, text=form.question)], caller
        )
        return stripped if stripped.edit is not None and stripped.edit.kind is EditKind.FACT else whole

    def _decided_parts(
        self,
        namespace: str,
        query: Query,
        parts: Sequence[Part],
        whole: RouteDecision,
        caller: Caller,
    ) -> list[_DecidedPart]:
        """The parts with their decisions; one that an edit answers is cut where it asks more than that."""
        queries = part_queries(query, [part.text for part in parts])
        alone = len(parts) == 1
        decisions = [whole] if alone else self._decide_each(namespace, queries, caller)
        decided: list[_DecidedPart] = []
        for part, of_part, decision in zip(parts, queries, decisions, strict=True):
            form = _form_of(decision)
            share = CUT if _may_be_two(decision) else ASKS_MORE
            known = -1.0 if of_part.context or not alone else decision.similarity or -1.0
            pieces = (
                None if form is None else cut_near(part.text, form, self._encoder, share=share, known=known)
            )
            if pieces is not None:
                cut = part_queries(of_part, pieces)
                of_cut = self._decide_each(namespace, cut, caller)
                of_pieces = [
                    _DecidedPart(query=piece, decision=each, is_marked=part.is_marked and each.in_scope)
                    for piece, each in zip(cut, of_cut, strict=True)
                ]
                if self._are_two_questions(of_pieces):
                    decided += of_pieces
                    continue
            decided.append(_DecidedPart(query=of_part, decision=decision, is_marked=part.is_marked))
        return decided

    def _are_two_questions(self, pieces: Sequence[_DecidedPart]) -> bool:
        """Whether the two pieces of one sentence ask for different things."""
        answered = [piece for piece in pieces if piece.decision.edit is not None]
        if len(answered) == 1:
            return any(self._asks_more(piece, answered) for piece in pieces if piece.decision.edit is None)
        return len(_partial_answers(answered)) > 1

    def _with_edits_of_whole(
        self, decided: Sequence[_DecidedPart], whole: RouteDecision, caller: Caller
    ) -> list[_DecidedPart]:
        """The parts; one that no edit answers gets one that the whole is in scope of, if it is nearest to it.

        A part has less around it than the whole, and may miss an edit by a little.
        """
        parts = list(decided)
        taken = {part.decision.edit.id for part in parts if part.decision.edit is not None}
        for candidate in whole.candidates:
            is_taken = candidate.edit.id in taken
            if not candidate.in_scope or is_taken or not candidate.edit.is_applied_to(caller):
                continue
            place = max(range(len(parts)), key=lambda place: _similarity(parts[place], candidate.edit))
            if parts[place].decision.edit is None and _similarity(parts[place], candidate.edit) > 0:
                decision = msgspec.structs.replace(
                    parts[place].decision,
                    route=Route.COUNTERFACTUAL,
                    edit=candidate.edit,
                    similarity=candidate.similarity,
                    scope_probability=candidate.scope_probability,
                    scope_threshold=candidate.scope_threshold,
                )
                parts[place] = msgspec.structs.replace(parts[place], decision=decision)
        return parts

    def _composed(
        self, namespace: str, decided: Sequence[_DecidedPart], whole: RouteDecision
    ) -> RouteDecision:
        """The decision that follows from those on the parts; `whole` if they ask for one thing."""
        answered = [part for part in decided if part.decision.edit is not None]
        answers = _partial_answers(answered)
        asks_more = any(self._asks_more(part, answered) for part in decided if part.decision.edit is None)
        if len(answers) < (1 if asks_more else 2):
            return whole
        route = _composite_route(self._config.composite_of(namespace), answered, asks_more=asks_more)
        may_be_task = any(part.query.instructions or is_quoted(part.query.text) for part in answered)
        if asks_more and not whole.in_scope and (may_be_task or route is Route.COUNTERFACTUAL):
            return whole
        is_partial = route is Route.COUNTERFACTUAL and asks_more
        stated = {edit.id: edit for part in answered for edit in part.decision.governing_edits}
        first = answered[0].decision
        return msgspec.structs.replace(
            whole,
            route=route,
            reason="answers in part" if is_partial else "asks several things",
            edit=first.edit,
            withheld=None,
            parts=answers,
            context_edits=tuple(stated.values()) if route is Route.IN_CONTEXT else (),
            similarity=first.similarity,
            scope_probability=min(part.decision.scope_probability or 0.0 for part in answered),
            scope_threshold=first.scope_threshold,
            candidates=_all_candidates([whole, *(part.decision for part in decided)]),
        )

    def _asks_more(self, part: _DecidedPart, answered: Sequence[_DecidedPart]) -> bool:
        """Whether a part that no edit answers asks something, beside those that edits answer."""
        marked = part.is_marked and any(each.is_marked for each in answered)
        if not answered or (not marked and weight(part.query.text) < LEAST_QUESTION):
            return False
        beside = answered[0]
        form = _form_of(beside.decision)
        assert form is not None
        both = f"{beside.query.text} {part.query.text}"
        return asks_more(beside.query.text, both, form, self._encoder, marked=marked)

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
        caller: Caller,
    ) -> RouteDecision:
        if not candidates:
            threshold = self._thresholds.scope
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
                scope_threshold=self._thresholds.of(candidate.edit),
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
        route, reason = _route(policy, chosen, depended)
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
            scope_threshold=nearest.scope_threshold,
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
            if candidate.edit.kind is EditKind.SUPPRESSION
            and whole.scope_probability < self._thresholds.suppression
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
        """The candidate whose edit governs: the most probable in scope, or one before it that asks the same.

        Probability cannot settle which of two edits of one question is meant: the one for the more specific
        audience is, of equals the newer one; but a suppression has no exceptions. Whether two edits ask the
        same is a matter of the edits, not of the request: see `_asks_the_same`. All other edits, such as
        those of a sibling attribute, displace nothing however probable they are.
        """
        in_scope = [candidate for candidate in ranked if candidate.in_scope]
        if not in_scope:
            return None
        best = in_scope[0]
        rivals = [
            rival
            for rival in in_scope[1:]
            if _precedence(rival) > _precedence(best)
            and (_is_exception(rival, best) or _logit(best) - _logit(rival) <= _RIVAL_LOGITS)
            and self._asks_the_same(rival.edit, best.edit)
        ]
        chosen = max((best, *rivals), key=_precedence)
        if chosen.edit.kind is EditKind.SUPPRESSION:
            return chosen
        suppressing = (
            rival
            for rival in in_scope
            if rival.edit.kind is EditKind.SUPPRESSION
            and rival.edit.audience != chosen.edit.audience
            and self._asks_the_same(rival.edit, chosen.edit)
        )
        return next(suppressing, chosen)

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
            if (candidate.depends_probability or 0.0) >= threshold
            and candidate is not chosen
            and not any(
                _is_exception(other, candidate) and self._asks_the_same(other.edit, candidate.edit)
                for other in ranked
            )
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
        return [candidate for candidate in ranked if candidate.in_scope and candidate.edit.kind is kind]

    def _answers(self, edit: Edit, prompt: str) -> bool:
        """Whether `prompt`, taken for a query, is in the scope of `edit`, by the name that it has there."""
        form = by_name_in(prompt, edit).prompt
        vectors_2D = self._encoder.encode([prompt, form])
        similarity = float(vectors_2D[0] @ vectors_2D[1])
        candidate = Candidate(edit=edit, form=form, similarity=similarity)
        (classification,) = self._classifier.classify(Query(text=prompt), [candidate])
        return classification.scope_probability >= self._thresholds.of(edit)


def _route(
    policy: CompositePolicy, chosen: ScoredCandidate | None, depended: Sequence[Edit]
) -> tuple[Route, str]:
    """The route and its reason."""
    if chosen is not None:
        return Route.COUNTERFACTUAL, "in scope"
    if depended and policy is CompositePolicy.IN_CONTEXT:
        return Route.IN_CONTEXT, "depends on an edit"
    return Route.BASE, "below threshold"


class _DecidedPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a query with its own decision."""

    query: Query
    decision: RouteDecision
    is_marked: bool


def _composite_route(policy: CompositePolicy, answered: Sequence[_DecidedPart], *, asks_more: bool) -> Route:
    """The route of a request that asks several things; with `asks_more` no edit answers some of them."""
    if any(part.decision.route is Route.IN_CONTEXT for part in answered):
        return Route.IN_CONTEXT
    if policy is CompositePolicy.PASS_THROUGH:
        return Route.BASE
    if asks_more and policy is not CompositePolicy.COUNTERFACTUAL_ONLY:
        return Route.IN_CONTEXT
    return Route.COUNTERFACTUAL


def _partial_answers(answered: Sequence[_DecidedPart]) -> tuple[PartialAnswer, ...]:
    """What each edit is asked, in the order of their first parts."""
    by_edit: dict[str, list[_DecidedPart]] = {}
    for part in answered:
        if part.decision.edit is not None:
            by_edit.setdefault(part.decision.edit.id, []).append(part)
    return tuple(
        PartialAnswer(
            edit=parts[0].decision.edit,
            query=msgspec.structs.replace(parts[0].query, text=" ".join(part.query.text for part in parts)),
        )
        for parts in by_edit.values()
        if parts[0].decision.edit is not None
    )


def _all_candidates(decisions: Sequence[RouteDecision]) -> tuple[ScoredCandidate, ...]:
    """The candidates of several decisions, each edit once with its highest probability, which come first."""
    best: dict[str, ScoredCandidate] = {}
    for candidate in (candidate for decision in decisions for candidate in decision.candidates):
        known = best.get(candidate.edit.id)
        if known is None or candidate.scope_probability > known.scope_probability:
            best[candidate.edit.id] = candidate
    return tuple(sorted(best.values(), key=lambda candidate: -candidate.scope_probability))


def _similarity(part: _DecidedPart, edit: Edit) -> float:
    """Of the part and the edit; -1 where the edit is no candidate."""
    return max((each.similarity for each in part.decision.candidates if each.edit.id == edit.id), default=-1)


def _may_be_two(decision: RouteDecision) -> bool:
    """Whether an edit besides the one in scope may answer something of the query."""
    likely = {each.edit.id for each in decision.candidates if each.scope_probability >= PERHAPS}
    return len(likely) > 1


def _form_of(decision: RouteDecision) -> str | None:
    """The form of the edit in scope that lies nearest; None: no edit is in scope."""
    if decision.edit is None:
        return None
    return next(each.form for each in decision.candidates if each.edit.id == decision.edit.id)


_Version = tuple[str, str, int, datetime]


def _version(edit: Edit) -> _Version:
    """Names one version: ids belong to a namespace, and begin again at version 1 after a purge."""
    return edit.namespace, edit.id, edit.version, edit.created_at


def _logit(candidate: ScoredCandidate) -> float:
    probability = min(max(candidate.scope_probability, 1e-9), 1 - 1e-9)
    return math.log(probability / (1 - probability))


def _is_exception(candidate: ScoredCandidate, other: ScoredCandidate) -> bool:
    """Whether it is for a part of the other's audience."""
    audience, of_other = candidate.edit.audience, other.edit.audience
    return audience != of_other and lies_within(audience, of_other)


def _precedence(
    candidate: ScoredCandidate,
) -> tuple[tuple[int, int], tuple[int, int], datetime, str]:
    """Sort key: edits for a more specific audience come later, of equals those whose version is newer.

    The log has the order. Times, which clocks of gateways made, and ids settle only a tie, as between edits
    that were never in a log.
    """
    edit = candidate.edit
    return specificity(edit.audience), candidate.log_order, edit.created_at, edit.id
