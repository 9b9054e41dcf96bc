"""The plan for a request: its route and what follows from it, made from the request's body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from serac_gateway.data_plane.answer_forms import left_to_base, stated_for, wanted_form
from serac_gateway.data_plane.exchange import Exchange
from serac_gateway.data_plane.protocols.all_text import all_text
from serac_gateway.data_plane.protocols.base import (
    STRUCTURED_OUTPUT,
    AnswerForm,
    ApiProtocol,
    CompletionRequest,
)
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.data_plane.protocols.edits_in_context import with_edits, with_edits_in_prompts
from serac_gateway.data_plane.protocols.endpoints import PROTOCOLS
from serac_gateway.domain.audiences import Caller, audience_text
from serac_gateway.domain.edits import Edit, EditKind
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.passages import SpokenText
from serac_gateway.domain.queries import MALFORMED, Bypass, Query, without_surrogates
from serac_gateway.domain.trials import Arm, Trial, trial_of
from serac_gateway.domain.wanted_forms import PLAIN, WantedForm
from serac_gateway.errors import UnreadableError
from serac_gateway.models.forms.reader import FormReader
from serac_gateway.routing.router import EditRouter, Route, RouteDecision
from serac_gateway.routing.several_questions import PartialAnswer

WANTED = frozenset({"messages", "input", "prompt", "system", "instructions"})
"""The members of a body that are read at any length."""
HEADER_SCHEMA = b"1"
"""The version of the meaning of the x-serac-* headers (docs/api.md). Adding a header keeps the version;
changing or removing one makes the next."""


class AnswerTask(msgspec.Struct, frozen=True, kw_only=True):
    """The input of an answer by the counterfactual model."""

    edit: Edit
    query: Query
    further: tuple[PartialAnswer, ...] = ()
    """The answers that follow in the same reply, where several edits answer their parts of a request."""
    request: CompletionRequest
    form: WantedForm = PLAIN
    """In which the request wants the answer."""
    prompt_tokens: int = 0
    """Of a refusal: tokens that the request is reported with."""
    answer_tokens: int = 0
    """Of a refusal: tokens of its text."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The answers to a request of several prompts, some of which an edit governs."""

    tasks: tuple[AnswerTask | None, ...]
    """The answer to each prompt; None: the base model's."""
    rest: tuple[int, ...]
    """The places of the other prompts, in order."""
    request: CompletionRequest
    """Of all prompts together."""
    choices_each: int
    """Of each prompt."""


class RequestPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The route of a request, why it takes it, and what the gateway does with it."""

    route: Route
    reason: str
    decision: RouteDecision | None = None
    """None: the router was not needed, or failed."""
    task: AnswerTask | None = None
    """Set if, and only if, the request is to be answered here."""
    batch: Batch | None = None
    """Set if, and only if, some of several prompts are to be answered here."""
    body: bytes | None = None
    """The body for the upstream instead of the client's; None: the client's, byte for byte. Beside a `task`
    or a `batch`: for what the base model answers after all."""
    model: str | None = None
    """The one that the request names; None where no decision was needed."""
    query: Query | None = None
    """The text of the decision, if there was one. Content: see `FinishedRequest.query`."""
    trial: Trial | None = None
    """The canary in whose scope the request is, as it was decided, whatever comes of it."""
    keeps_reply: bool = False
    """Whether the reply's text is recorded: of requests of a trial, where the namespace's traffic is."""
    decide_s: float | None = None
    """From the whole request to the decision, waiting included; None if none was needed."""


UNDECIDED = RequestPlan(route=Route.BYPASS, reason="refused")
"""The plan of a request that ends before it is decided on."""


def plan_request(
    router: EditRouter,
    namespace: str,
    endpoint: Endpoint,
    body: RequestBody,
    sender: Caller,
    *,
    reader: FormReader | None = None,
) -> RequestPlan:
    """The plan for a whole request body. Runs on a worker thread: parsing a long body takes time, too.

    Scope is decided first, and only then whether an answer can be given in the form that the request demands:
    a suppression in scope refuses whatever the form is. Audiences go by the labels of the `sender`, canaries
    by the user that the body names, else by its name. Forms that are asked for in words are read by `reader`;
    None: they are not read.

    Raises:
        UnreadableError: The request cannot be read, and the policy is to refuse such requests.
        ModelUnavailableError: Encoder or classifier failed.
    """
    refuses = router.refuses_unreadable(namespace)
    protocol = PROTOCOLS[endpoint]
    suppressions = router.has_suppressions(namespace)
    try:
        reading = body.read(None if suppressions else WANTED)
        decoded = reading.value
        if not isinstance(decoded, Mapping):
            raise _unreadable(MALFORMED.reason)
        texts = all_text(decoded, reading.overridden) if suppressions else []
    except UnreadableError as error:
        if refuses or (error.is_avoidable and not router.passes_unreadable(namespace)):
            raise
        return RequestPlan(route=Route.BYPASS, reason=str(error.details["reason"]))
    caller = _user_or(sender, decoded)
    if prompts := protocol.prompt_queries(decoded):
        return _planned_batch(router, namespace, protocol, body, decoded, prompts, texts, caller)
    query = protocol.query(decoded)
    decision = None
    if isinstance(query, Query):
        (decision,) = router.decide(namespace, [query], caller=caller)
    if suppressions and (decision is None or decision.refusal is None):
        # Also beside a fact in scope: its answer may fail or be impossible, and the base model is asked then.
        decided = query if isinstance(query, Query) else None
        refusal = router.decide_suppression(namespace, texts, caller=caller, decided=decided)
        decision = refusal or decision
    if isinstance(query, Bypass):
        if decision is None and query.unreadable and refuses:
            raise _unreadable(query.reason)
        if decision is None:
            return RequestPlan(route=Route.BYPASS, reason=query.reason)
    assert decision is not None
    trial = _trial(decision, caller)
    form = protocol.answer_form(decoded, body.form.path_model)
    wanted, policy = PLAIN, router.composite_policy(namespace)
    if isinstance(query, Query) and form.unsupported_reason is None:
        wanted = wanted_form(reader, policy, _decided(query, decision), decision)
        decision = left_to_base(decision, wanted, policy)
    plan = _planned(protocol, body, decoded, query, decision, form)
    if trial is not None:
        plan = msgspec.structs.replace(plan, trial=trial)
    if plan.task is None or wanted == PLAIN:
        return plan
    plan = msgspec.structs.replace(plan, task=msgspec.structs.replace(plan.task, form=wanted))
    if plan.body is None and (stated := stated_for(wanted, policy, decision)):
        return msgspec.structs.replace(plan, body=with_edits(protocol, body.strict_members(), stated))
    return plan


def _trial(decision: RouteDecision, caller: Caller) -> Trial | None:
    """A canary that this user has comes first; a withheld one would govern if it were live."""
    if caller.name is None:
        return None
    for edit in decision.governing_edits:
        if (trial := trial_of(edit, Arm.TREATMENT, caller.name)) is not None:
            return trial
    withheld = decision.withheld
    return None if withheld is None else trial_of(withheld, Arm.CONTROL, caller.name)


def _decided(query: Query, decision: RouteDecision) -> Query:
    """The query that was decided on, which is a passage of a longer one at times."""
    return query if decision.question is None else Query(text=decision.question)


def _planned(
    protocol: ApiProtocol,
    body: RequestBody,
    decoded: Mapping[str, object],
    query: Query | Bypass,
    decision: RouteDecision,
    form: AnswerForm,
) -> RequestPlan:
    """The plan that follows from the decision on a request of that form."""
    if decision.question is not None:
        query = Query(text=decision.question)
    assert isinstance(query, Query)
    plan = RequestPlan(
        route=decision.route,
        reason=decision.reason,
        decision=decision,
        model=form.request.model,
        query=query,
    )
    if decision.refusal is not None:
        is_structured = form.unsupported_reason == STRUCTURED_OUTPUT
        request = msgspec.structs.replace(
            form.request,
            choices=form.request.choices * protocol.prompt_count(decoded),
            marked_refusal=is_structured,
        )
        task = AnswerTask(edit=decision.refusal, query=query, request=request)
        return msgspec.structs.replace(plan, task=task)
    unsupported = form.unsupported_reason
    if unsupported is not None and decision.route is Route.COUNTERFACTUAL:
        return msgspec.structs.replace(plan, route=Route.BYPASS, reason=unsupported)
    if (answer := _task_of(query, decision, form.request)) is not None:
        plan = msgspec.structs.replace(plan, task=answer)
    if stated := _stated(decision, answer):
        return msgspec.structs.replace(plan, body=with_edits(protocol, body.strict_members(), stated))
    return plan


def _planned_batch(
    router: EditRouter,
    namespace: str,
    protocol: ApiProtocol,
    body: RequestBody,
    decoded: Mapping[str, object],
    prompts: Sequence[Query | Bypass],
    texts: Sequence[SpokenText],
    caller: Caller,
) -> RequestPlan:
    """The plan for a request of several prompts: each is decided, and a suppression in scope refuses all."""
    queries = [prompt for prompt in prompts if isinstance(prompt, Query)]
    decisions = router.decide(namespace, queries, caller=caller) if queries else []
    form = protocol.answer_form(decoded, body.form.path_model)
    for query, decision in zip(queries, decisions, strict=True):
        if decision.refusal is not None:
            return _planned(protocol, body, decoded, query, decision, form)
    if (refusal := router.decide_suppression(namespace, texts, caller=caller)) is not None:
        return _planned(protocol, body, decoded, Query(text=refusal.question or ""), refusal, form)
    by_query = iter(zip(queries, decisions, strict=True))
    decided = [next(by_query) if isinstance(prompt, Query) else None for prompt in prompts]
    tasks = tuple(None if pair is None else _task_of(*pair, form.request) for pair in decided)
    stated = {
        place: edits
        for place, (pair, task) in enumerate(zip(decided, tasks, strict=True))
        if pair is not None and (edits := _stated(pair[1], task))
    }
    chosen = _first_of(decisions, Route.COUNTERFACTUAL) or _first_of(decisions, Route.IN_CONTEXT)
    if chosen is None:
        first = decisions[0] if decisions else RouteDecision(route=Route.BASE, reason="no candidate")
        return RequestPlan(route=Route.BASE, reason=first.reason, decision=first, model=form.request.model)
    plan = RequestPlan(
        route=chosen.route,
        reason=chosen.reason,
        decision=chosen,
        model=form.request.model,
        body=with_edits_in_prompts(protocol, body.strict_members(), stated) if stated else None,
    )
    if not any(tasks):
        return plan
    if form.unsupported_reason is not None:
        return msgspec.structs.replace(plan, route=Route.BYPASS, reason=form.unsupported_reason, body=None)
    batch = Batch(
        tasks=tasks,
        rest=tuple(place for place, task in enumerate(tasks) if task is None),
        request=msgspec.structs.replace(form.request, choices=form.request.choices * len(tasks)),
        choices_each=form.request.choices,
    )
    return msgspec.structs.replace(plan, batch=batch)


def _stated(decision: RouteDecision, task: AnswerTask | None) -> tuple[Edit, ...]:
    """The edits to state if the base model answers: those, too, of which an answer may be declined."""
    if task is not None and task.further:
        return decision.governing_edits
    if task is not None and task.edit.kind is EditKind.INSTRUCTION:
        return (task.edit,)
    return decision.context_edits


def _first_of(decisions: Sequence[RouteDecision], route: Route) -> RouteDecision | None:
    return next((decision for decision in decisions if decision.route is route), None)


def _task_of(query: Query, decision: RouteDecision, request: CompletionRequest) -> AnswerTask | None:
    """The answer to a query that an edit governs."""
    if decision.route is not Route.COUNTERFACTUAL or decision.edit is None:
        return None
    if decision.parts:
        first, *further = decision.parts
        return AnswerTask(edit=first.edit, query=first.query, further=tuple(further), request=request)
    return AnswerTask(edit=decision.edit, query=_decided(query, decision), request=request)


def _unreadable(reason: str) -> UnreadableError:
    remedy = _REMEDIES.get(reason, "send the conversation's text as the API's reference has it")
    return UnreadableError(
        f"the gateway cannot read this request ({reason}), and refuses what it cannot read here; {remedy}",
        details={"reason": reason},
    )


_REMEDIES = {
    "prompt of token ids": "send the prompt as text",
    "leans on turns not shown": "send the earlier turns along instead of naming them",
    "prompt template": "send the template's text as instructions",
}


def _user_or(sender: Caller, decoded: object) -> Caller:
    """The sender under the name of the user that a decoded body names, if it does; its labels stay.

    A body names one in `safety_identifier` or `user` (its older name), in Anthropic's API in
    `metadata.user_id`.
    """
    assert isinstance(decoded, Mapping)  # a request has been parsed from it
    metadata = decoded.get("metadata")
    user_id = metadata.get("user_id") if isinstance(metadata, Mapping) else None
    for value in (decoded.get("safety_identifier"), decoded.get("user"), user_id):
        if isinstance(value, str) and value:
            return msgspec.structs.replace(sender, name=f"user:{without_surrogates(value)}")
    return sender


def serac_headers(exchange: Exchange, plan: RequestPlan) -> list[tuple[bytes, bytes]]:
    """The x-serac-* headers of a response: the route; the details only where the request wants them.

    The decision's details only if the sender may see them: with edit ids and probabilities, one who may not
    read edits could search for their text.
    """
    headers = [(b"x-serac-route", plan.route.encode()), (b"x-serac-schema", HEADER_SCHEMA)]
    if (exchange.header(b"x-serac-debug") or b"").lower() not in (b"true", b"1"):
        return headers
    headers.append((b"x-serac-reason", plan.reason.encode()))
    if plan.query is not None:
        read = ", ".join(f"{name}={size}" for name, size in plan.query.sizes.items())
        headers.append((b"x-serac-read", read.encode()))
    decision = plan.decision
    if decision is None or not exchange.may_see_decision:
        return headers
    if exchange.caller.labels:
        labels = " ".join(f"{label}={value}" for label, value in exchange.caller.labels.items())
        headers.append((b"x-serac-labels", labels.encode()))
    for edit in decision.governing_edits:
        headers.append((b"x-serac-edit-id", edit.id.encode()))
        headers.append((b"x-serac-edit-version", str(edit.version).encode()))
        if edit.audience:
            headers.append((b"x-serac-edit-audience", audience_text(edit.audience).encode()))
    if decision.withheld is not None:
        headers.append((b"x-serac-withheld-edit-id", decision.withheld.id.encode()))
        headers.append((b"x-serac-withheld-edit-version", str(decision.withheld.version).encode()))
    if decision.scope_probability is not None:
        headers.append((b"x-serac-scope-probability", f"{decision.scope_probability:.4f}".encode()))
    timings = decision.timings
    stages = (
        ("encode", timings.encode_s),
        ("search", timings.search_s),
        ("classify", timings.classify_s),
        ("decide", plan.decide_s or 0.0),
    )
    # In milliseconds, in the format of the header Server-Timing.
    value = ", ".join(f"{name};dur={stage_s * 1_000:.3f}" for name, stage_s in stages)
    return [*headers, (b"x-serac-timings", value.encode())]
