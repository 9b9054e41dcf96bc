"""What follows from the form that a request in scope wants: an answer in it here, or the base model's."""

from __future__ import annotations

import msgspec

from serac_gateway.config.model import CompositePolicy
from serac_gateway.domain.edits import Edit, EditKind
from serac_gateway.domain.queries import Query
from serac_gateway.domain.wanted_forms import PLAIN, STRUCTURES, FormKind, WantedForm
from serac_gateway.models.forms.reader import FormReader
from serac_gateway.routing.router import Route, RouteDecision

_OF_ONE_ANSWER = frozenset({*STRUCTURES, FormKind.BEGIN, FormKind.YES_NO})
"""Forms of a whole reply, which several answers one below the other do not have."""
_MAY_FAIL = frozenset({FormKind.YES_NO, FormKind.SENTENCE, FormKind.XML, FormKind.BEGIN})
"""Forms of which only the answer shows whether it can have them."""


def wanted_form(
    reader: FormReader | None, policy: CompositePolicy, query: Query, decision: RouteDecision
) -> WantedForm:
    """The form in which a request wants the answer of a fact; plain without a reader, and of other edits.

    Raises:
        ModelUnavailableError: The encoder failed.
    """
    edit = decision.edit
    if reader is None or edit is None or edit.kind is not EditKind.FACT:
        return PLAIN
    if decision.route is not Route.COUNTERFACTUAL:
        return PLAIN
    form = reader.read(query, edit)
    if len(decision.parts) > 1:
        kinds = tuple(FormKind.OTHER if kind in _OF_ONE_ANSWER else kind for kind in form.kinds)
        form = msgspec.structs.replace(form, kinds=kinds, question=None)
    return msgspec.structs.replace(form, falls_back=policy is CompositePolicy.COUNTERFACTUAL_ONLY)


def left_to_base(decision: RouteDecision, form: WantedForm, policy: CompositePolicy) -> RouteDecision:
    """`decision`, or another if no answer here can have the form and the base model gets such requests."""
    if FormKind.OTHER not in form.kinds or form.falls_back:
        return decision
    if policy is CompositePolicy.PASS_THROUGH:
        return msgspec.structs.replace(decision, route=Route.BASE, reason="form")
    return msgspec.structs.replace(
        decision, route=Route.IN_CONTEXT, reason="form", context_edits=decision.governing_edits
    )


def stated_for(form: WantedForm, policy: CompositePolicy, decision: RouteDecision) -> tuple[Edit, ...]:
    """The edits to state to the base model if the answer turns out to have no such form."""
    if form.falls_back or policy is CompositePolicy.PASS_THROUGH or not _MAY_FAIL.intersection(form.kinds):
        return ()
    return decision.governing_edits
