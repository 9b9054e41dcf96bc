"""Sends an edit's own questions through router and counterfactual model, and judges the answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from datetime import UTC, datetime

import msgspec

from serac_gateway.control_plane.webhooks.events import Announce, announce_nothing, verification_event
from serac_gateway.domain.audiences import Caller, labels_within
from serac_gateway.domain.edits import ACTIVE_STATES, Edit, EditKind, forms
from serac_gateway.domain.queries import Query
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.overlay import ActiveEditsOverlay, as_if_live
from serac_gateway.errors import EditConflictError, ModelUnavailableError, StoreUnavailableError
from serac_gateway.models.counterfactual.matching import target_span
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.routing.router import EditRouter, Route
from serac_gateway.stores.ports import ProbeOutcome, Verification, VerificationStore

log = logging.getLogger(__name__)


class AnsweredProbe(msgspec.Struct, frozen=True, kw_only=True):
    """A probe with its texts, which are returned and never stored."""

    outcome: ProbeOutcome
    query: str
    answer: str | None
    """None: the counterfactual model did not run, or failed."""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """A verification with its answers."""

    verification: Verification
    probes: list[AnsweredProbe]


class Verifier:
    """Verifies edits, a question at a time. Belongs to one event loop."""

    def __init__(
        self,
        *,
        router: EditRouter,
        active_edits: ActiveEdits,
        encoder: Encoder,
        answer: Callable[[Edit, Query], Awaitable[str]],
        store: VerificationStore,
        pool: Executor,
        announce: Announce = announce_nothing,
    ) -> None:
        self._router = router
        self._active_edits = active_edits
        self._encoder = encoder
        self._answer = answer
        self._store = store
        self._pool = pool
        self._announce = announce

    async def verify(self, namespace: str, edit: Edit) -> Verified:
        """Probe prompt and paraphrases of `edit`, the current version in `namespace`, and store the outcome.

        An edit on trial, or whose window is not open, is probed as if it were live, and one for an audience
        as by a request with the first value of each of its labels. A failure of the
        counterfactual model or of the classifier is reported as a probe that did not pass.

        Raises:
            EditConflictError: It is retired.
        """
        if edit.state not in ACTIVE_STATES:
            raise EditConflictError(
                f"edit {edit.id!r} is {edit.state.value}, so it answers nothing and cannot be verified;"
                " restore it first",
                field="id",
                details={"value": edit.state.value},
            )
        questions = {"prompt": edit.prompt} | {
            f"paraphrases[{place}]": text for place, text in enumerate(edit.paraphrases)
        }
        try:
            router = await asyncio.get_running_loop().run_in_executor(self._pool, self._router_for, edit)
            probes = [
                await self._probed(namespace, edit, router, probe, text) for probe, text in questions.items()
            ]
        except ModelUnavailableError as error:
            probes = [
                _failed(probe, text, Route.BYPASS, f"not decided: {error.message}")
                for probe, text in questions.items()
            ]
        verification = Verification(
            edit_id=edit.id,
            edit_version=edit.version,
            at=datetime.now(UTC),
            passed=all(probe.outcome.passed for probe in probes),
            probes=[probe.outcome for probe in probes],
        )
        try:
            await self._store.put(namespace, verification)
        except StoreUnavailableError as error:  # the result is returned all the same
            log.warning("the verification of edit %s was not kept: %s", edit.id, error.message)
        if not verification.passed:
            self._announce(verification_event(namespace, verification))
        return Verified(verification=verification, probes=probes)

    async def _probed(
        self, namespace: str, edit: Edit, router: EditRouter, probe: str, text: str
    ) -> AnsweredProbe:
        query = Query(text=text)
        caller = Caller(labels=labels_within(edit.audience))
        try:
            decision = await asyncio.get_running_loop().run_in_executor(
                self._pool, lambda: router.decide(namespace, [query], caller=caller)[0]
            )
        except ModelUnavailableError as error:
            return _failed(probe, text, Route.BYPASS, f"not decided: {error.message}")
        outcome = ProbeOutcome(
            probe=probe,
            passed=False,
            route=decision.route,
            governed_by=None if decision.edit is None else decision.edit.id,
            scope_probability=decision.scope_probability,
        )
        if decision.edit is None or decision.route is Route.BASE:
            outcome = msgspec.structs.replace(outcome, failure=decision.reason)
            return AnsweredProbe(outcome=outcome, query=text, answer=None)
        if decision.edit.id != edit.id:
            outcome = msgspec.structs.replace(outcome, failure="another edit governs")
            return AnsweredProbe(outcome=outcome, query=text, answer=None)
        if decision.route is Route.IN_CONTEXT:  # the base model's answer is not ours to judge
            outcome = msgspec.structs.replace(outcome, passed=True)
            return AnsweredProbe(outcome=outcome, query=text, answer=None)
        try:
            answer = await self._answer(edit, query)
        except ModelUnavailableError as error:
            outcome = msgspec.structs.replace(outcome, failure=f"not answered: {error.message}")
            return AnsweredProbe(outcome=outcome, query=text, answer=None)
        failure = _fault(edit, answer)
        outcome = msgspec.structs.replace(outcome, passed=failure is None, failure=failure)
        return AnsweredProbe(outcome=outcome, query=text, answer=answer)

    def _router_for(self, edit: Edit) -> EditRouter:
        vectors_FD = self._encoder.encode(forms(edit))
        own = msgspec.structs.replace(as_if_live(edit), created_at=edit.created_at)
        log_order = self._active_edits.log_order(edit.namespace, edit.id)
        overlay = ActiveEditsOverlay(self._active_edits, own, vectors_FD, log_order=log_order)
        return self._router.over(overlay)


def _failed(probe: str, text: str, route: Route, failure: str) -> AnsweredProbe:
    outcome = ProbeOutcome(probe=probe, passed=False, route=route, failure=failure)
    return AnsweredProbe(outcome=outcome, query=text, answer=None)


def _fault(edit: Edit, answer: str) -> str | None:
    """What is wrong with the answer; of an instruction only that there is none."""
    match edit.kind:
        case EditKind.FACT:
            return None if target_span(answer, edit.target_new) else "the answer lacks target_new"
        case EditKind.SUPPRESSION:
            return None if answer == edit.target_new.strip() else "the answer is not target_new"
        case EditKind.INSTRUCTION:
            return None if answer else "the answer is empty"
