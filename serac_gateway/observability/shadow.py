"""Decisions of a scope classifier on trial: made after the reply, counted, never applied.

`OpenShadow` is the classifier with its thread and its record, which runtimes share; `Shadow` is what one
runtime does with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from serac_gateway.domain.audiences import NO_LABELS, Caller, Labels
from serac_gateway.domain.edits import AwareDatetime
from serac_gateway.domain.queries import Query
from serac_gateway.models.classifiers.base import Candidate, ScopeClassifier
from serac_gateway.observability.request_record import FinishedRequest
from serac_gateway.routing.router import EditRouter, RouteDecision
from serac_gateway.stores.traffic_recorder import TrafficRecorder

log = logging.getLogger(__name__)

MAX_WAITING = 64
"""Decisions that wait for the thread; further ones are dropped and counted."""
MAX_DISAGREEMENTS = 1_000
"""Kept of all namespaces, the latest."""
_MAX_NAMESPACES = 10_000
_LOWER_PRIORITY = 10
"""Added to the thread's niceness: requests in force come first where cores are scarce."""


class ShadowOutcome(StrEnum):
    """How a decision on trial compares with the one in force."""

    AGREE = "agree"
    WOULD_FIRE = "would_fire"
    """An edit would govern, and none does."""
    WOULD_NOT_FIRE = "would_not_fire"
    """No edit would govern, and one does."""
    OTHER_EDIT = "other_edit"
    """Another edit would govern."""
    DROPPED = "dropped"
    """Not decided: too many waited."""
    FAILED = "failed"
    """The classifier raised; the log has the error."""


class ShadowDisagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A request that the classifier on trial would have decided otherwise."""

    request_id: str
    at: AwareDatetime
    outcome: ShadowOutcome
    edit_id: str | None
    """The edit in whose scope the request was decided to be, also one that is itself on trial."""
    shadow_edit_id: str | None
    """The edit in whose scope the classifier on trial has it."""
    scope_probability: float | None
    shadow_scope_probability: float | None
    """Of the edit chosen, else of the most probable one."""
    query: str | None
    """Its text, redacted, where the namespace's traffic is recorded."""


class ShadowReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the classifier on trial decided in a namespace since its weights were opened in this process."""

    weights: str
    """The folder of its weights."""
    fingerprint: str
    since: AwareDatetime
    scope_threshold: float
    suppression_threshold: float
    decisions: dict[ShadowOutcome, int]
    """How many of each outcome. Requests near no edit are not among them."""
    disagreements: list[ShadowDisagreement]
    """The latest first."""


class OpenShadow:
    """A classifier on trial with its thread and its record. Belongs to the event loop."""

    def __init__(self, weights: str, classifier: ScopeClassifier, pool: ThreadPoolExecutor) -> None:
        """`pool` has one thread: see `shadow_pool`."""
        self.weights = weights
        self.classifier = classifier
        self.pool = pool
        self.since = datetime.now(UTC)
        self.waiting = 0
        """Decisions that wait or are being made."""
        self._counts: dict[str, Counter[ShadowOutcome]] = {}
        self._disagreements: deque[tuple[str, ShadowDisagreement]] = deque(maxlen=MAX_DISAGREEMENTS)

    def note(
        self, namespace: str, outcome: ShadowOutcome, disagreement: ShadowDisagreement | None = None
    ) -> None:
        """Count an outcome, and keep what it was."""
        if namespace in self._counts or len(self._counts) < _MAX_NAMESPACES:
            self._counts.setdefault(namespace, Counter())[outcome] += 1
        if disagreement is not None:
            self._disagreements.append((namespace, disagreement))

    def counts(self, namespace: str) -> dict[ShadowOutcome, int]:
        """How many decisions of the namespace had each outcome."""
        counted = self._counts.get(namespace, Counter())
        return {outcome: counted[outcome] for outcome in ShadowOutcome}

    def disagreements(self, namespace: str) -> list[ShadowDisagreement]:
        """Those of the namespace that are kept, the latest first."""
        return [kept for owner, kept in reversed(self._disagreements) if owner == namespace]

    async def close(self) -> None:
        """Give up the decisions that wait, and end the thread."""
        await asyncio.to_thread(self.pool.shutdown, cancel_futures=True)


def shadow_pool() -> ThreadPoolExecutor:
    """One thread of low priority. What it starts, such as a model's own threads, has that priority too."""
    return ThreadPoolExecutor(1, thread_name_prefix="shadow", initializer=_lower_priority)


def _lower_priority() -> None:
    with suppress(OSError):
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _LOWER_PRIORITY)


class Shadow:
    """Decides again, with the classifier on trial, on the candidates of decisions in force."""

    def __init__(
        self,
        opened: OpenShadow,
        router: EditRouter,
        traffic: TrafficRecorder,
        *,
        on_outcome: Callable[[ShadowOutcome], None] = lambda outcome: None,
    ) -> None:
        """`router` decides by the opened classifier; a text is kept where `traffic` records it."""
        self._opened = opened
        self._router = router
        self._traffic = traffic
        self._on_outcome = on_outcome

    def add(self, request: FinishedRequest) -> None:
        """An observer for the data plane: decide on a request that has ended, on the thread on trial."""
        decision, namespace = request.decision, request.namespace
        if decision is None or namespace is None or not decision.candidates:
            return
        if request.query is None and decision.question is None:
            return
        if self._opened.waiting >= MAX_WAITING:
            self._note(namespace, ShadowOutcome.DROPPED)
            return
        self._opened.waiting += 1
        loop = asyncio.get_running_loop()
        try:
            deciding = self._opened.pool.submit(self._compared, request, decision, namespace)
        except RuntimeError:  # the last requests of a runtime that is closed
            self._opened.waiting -= 1
            return

        def hand_over(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed: nothing is counted any more
                loop.call_soon_threadsafe(finish)

        def finish() -> None:
            self._opened.waiting -= 1
            if not deciding.cancelled():
                self._note(namespace, *deciding.result())

        deciding.add_done_callback(hand_over)

    def decide(
        self, namespace: str, query: Query, decision: RouteDecision, labels: Labels = NO_LABELS
    ) -> RouteDecision:
        """The decision on trial about `query`, among the candidates of `decision`. For worker threads.

        `labels` are those of the request. Canaries count as withheld.

        Raises:
            ModelUnavailableError: The classifier failed.
        """
        candidates = [
            Candidate(
                edit=candidate.edit,
                form=candidate.form,
                similarity=candidate.similarity,
                log_order=candidate.log_order,
            )
            for candidate in sorted(decision.candidates, key=lambda candidate: -candidate.similarity)
            if candidate.similarity >= self._router.similarity_floor
        ]
        read = query if decision.question is None else Query(text=decision.question)
        return self._router.decide_among(namespace, read, candidates, Caller(labels=dict(labels)))

    def report(self, namespace: str) -> ShadowReport:
        """The record of a namespace."""
        opened = self._opened
        return ShadowReport(
            weights=opened.weights,
            fingerprint=opened.classifier.fingerprint,
            since=opened.since,
            scope_threshold=self._router.thresholds.scope,
            suppression_threshold=self._router.thresholds.suppression,
            decisions=opened.counts(namespace),
            disagreements=opened.disagreements(namespace),
        )

    def _note(
        self, namespace: str, outcome: ShadowOutcome, disagreement: ShadowDisagreement | None = None
    ) -> None:
        self._opened.note(namespace, outcome, disagreement)
        self._on_outcome(outcome)

    def _compared(
        self, request: FinishedRequest, decision: RouteDecision, namespace: str
    ) -> tuple[ShadowOutcome, ShadowDisagreement | None]:
        query = request.query or Query(text=decision.question or "")
        try:
            on_trial = self.decide(namespace, query, decision, request.labels)
        except Exception:  # whatever a model raises must not reach the loop
            log.warning("the scope classifier on trial failed", exc_info=True)
            return ShadowOutcome.FAILED, None
        outcome = compared(decision, on_trial)
        if outcome is ShadowOutcome.AGREE:
            return outcome, None
        edit, shadow_edit = decision.scoped_edit, on_trial.scoped_edit
        is_recorded = request.query is not None and self._traffic.is_on(namespace)
        return outcome, ShadowDisagreement(
            request_id=request.request_id,
            at=datetime.now(UTC),
            outcome=outcome,
            edit_id=None if edit is None else edit.id,
            shadow_edit_id=None if shadow_edit is None else shadow_edit.id,
            scope_probability=decision.scope_probability,
            shadow_scope_probability=on_trial.scope_probability,
            query=self._traffic.redacted(query).text if is_recorded else None,
        )


def compared(in_force: RouteDecision, on_trial: RouteDecision) -> ShadowOutcome:
    """How the decision on trial differs: by the edit in whose scope the request is, whatever its state."""
    edit, shadow_edit = in_force.scoped_edit, on_trial.scoped_edit
    if (edit and edit.id) == (shadow_edit and shadow_edit.id):
        return ShadowOutcome.AGREE
    if edit is None:
        return ShadowOutcome.WOULD_FIRE
    return ShadowOutcome.WOULD_NOT_FIRE if shadow_edit is None else ShadowOutcome.OTHER_EDIT
