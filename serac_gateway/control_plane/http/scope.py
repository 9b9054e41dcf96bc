"""POST /serac/v1/scope: what would be decided about queries. No model answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, post
from litestar.datastructures import State
from litestar.openapi.spec import Example
from litestar.params import BodyKwarg

from serac_gateway.control_plane.http.client_watch import unless_client_leaves
from serac_gateway.control_plane.http.dependencies import Context, ControlPlaneContext
from serac_gateway.control_plane.http.parameters import Namespace, problems
from serac_gateway.control_plane.model_threads import SLICE_QUERIES
from serac_gateway.domain.audiences import Audience, Caller
from serac_gateway.domain.queries import Bypass, Query, query_of_messages
from serac_gateway.errors import InvalidRequestError, ModelUnavailableError
from serac_gateway.observability.shadow import Shadow
from serac_gateway.routing.router import Route, RouteDecision, ScoredCandidate

log = logging.getLogger(__name__)

MAX_SCOPE_QUERIES = 256
_EXAMPLE = Example(
    summary="A query, and one with the turns before it",
    value={
        "queries": [
            "Who runs the harbour office of Marrowby?",
            {
                "messages": [
                    {"role": "user", "content": "Where is the harbour office of Marrowby?"},
                    {"role": "assistant", "content": "On Quay Street."},
                    {"role": "user", "content": "And who runs it?"},
                ]
            },
        ]
    },
)


class ScopeConversation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A query with the turns before it, as a chat request holds them."""

    messages: list[dict[str, Any]]


class ScopeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Queries to decide on."""

    queries: Annotated[
        list[str | ScopeConversation],
        msgspec.Meta(
            description=f"At most {MAX_SCOPE_QUERIES}: a text, or messages as in a chat request, whose last"
            " turn is the query. Of a long text only beginning and end count."
        ),
    ]
    user: str | None = None
    """By whom canaries are decided, as by `user` in a chat request; without it every canary is withheld."""
    labels: dict[str, str] = {}
    """Of the imagined request, as `routing.audience_from` would read them; those of the call do not count."""


class ScopeCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """An edit that lies near the query, with its classification."""

    edit_id: str
    edit_version: int
    prompt: str
    target_new: str
    form: str
    """The form of the edit that lies nearest."""
    similarity: float
    scope_probability: float
    scope_threshold: float
    """The query is in the edit's scope from this probability on; suppressions have one of their own."""
    depends_probability: float | None
    """P(a right answer depends on the edit); null where the classifier cannot say."""
    audience: Audience


class ScopeOnTrial(msgspec.Struct, frozen=True, kw_only=True):
    """What the scope classifier on trial would decide among the same candidates; no canary applies."""

    in_scope: bool
    edit_id: str | None
    scope_probability: float | None
    """Of the edit chosen, else of the most probable candidate."""
    scope_threshold: float


class ReadQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision was made on."""

    text: str
    """Of the last turn; of a long one beginning and end."""
    context: list[str]
    """The earlier turns that were read with it, oldest first."""
    instructions: str
    """System and developer messages; of long ones beginning and end."""
    question: str | None
    """The question within a longer text that was decided on; null: the whole."""


class ScopePart(msgspec.Struct, frozen=True, kw_only=True):
    """What one of several edits answers of a query that asks several things."""

    text: str
    edit_id: str


class ScopeDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen to a query, and why."""

    in_scope: bool
    route: Route
    reason: str
    edit_id: str | None
    edit_version: int | None
    withheld_edit_id: str | None
    """The edit on trial that would govern if it were live: a shadow, or a canary not for this user."""
    context_edit_ids: list[str]
    """The edits that the base model would get in its context, on the route in_context."""
    parts: list[ScopePart]
    """Of a query that asks several things: what each edit answers, in order; else empty."""
    scope_probability: float | None
    """Of the edit chosen, else of the most probable candidate; null if there is none. Of parts the lowest."""
    scope_threshold: float | None
    """Of the same edit."""
    similarity: float | None
    candidates: list[ScopeCandidate]
    """Most probable first."""
    other_audiences: list[ScopeCandidate]
    """Edits in whose scope the query is, for audiences that the request is not in. Most probable first."""
    shadow: ScopeOnTrial | None
    """Null where no scope classifier is on trial, or no edit is near."""
    read_as: ReadQuery | None
    """Null if there was nothing to decide on: the reason says why."""


class ScopeReply(msgspec.Struct, frozen=True, kw_only=True):
    """One decision a query, in order."""

    decisions: list[ScopeDecision]


class ScopeController(Controller):
    """/serac/v1/scope."""

    tags = ("scope",)

    @post(
        "/scope",
        status_code=200,
        summary="Decide on queries",
        description=f"For each of at most {MAX_SCOPE_QUERIES} queries what a chat request with these messages"
        " or with this text as its only turn would meet. Any text gets a decision, an empty one too.",
        responses=problems(400, 413, 503),
    )
    async def decide(
        self,
        data: Annotated[ScopeRequest, BodyKwarg(examples=[_EXAMPLE])],
        namespace: Namespace,
        context: Context,
        request: Request[object, object, State],
    ) -> ScopeReply:
        """One decision a query, in order."""
        async with context.model_threads.time_limit("reading these queries"):
            queries = await context.model_threads.run(partial(parsed_queries, data.queries))
        caller = Caller(
            name=None if data.user is None else f"user:{data.user}",
            labels=context.audience_labels.given(data.labels),
        )
        decisions = await unless_client_leaves(
            request.receive, _decisions(context, namespace, queries, caller)
        )
        return ScopeReply(
            decisions=[
                _scope_decision(query, decided) for query, decided in zip(queries, decisions, strict=True)
            ]
        )


class _Decided(msgspec.Struct, frozen=True, kw_only=True):
    """A decision, and what explains it."""

    decision: RouteDecision
    on_trial: RouteDecision | None = None
    """Of the scope classifier on trial, if there is any."""
    for_others: tuple[ScoredCandidate, ...] = ()


def parsed_queries(queries: Sequence[str | ScopeConversation]) -> list[Query | Bypass]:
    """The query of each text or conversation; `Bypass` where its messages hold none.

    For worker threads: the conversations may be long.

    Raises:
        InvalidRequestError: There are more than `MAX_SCOPE_QUERIES`.
    """
    count = len(queries)
    if count > MAX_SCOPE_QUERIES:
        raise InvalidRequestError(
            f"{count} queries are too many; the limit is {MAX_SCOPE_QUERIES}; send several requests",
            field="queries",
            details={"value": count, "limit": MAX_SCOPE_QUERIES},
        )
    return [
        query_of_messages([{"role": "user", "content": query}] if isinstance(query, str) else query.messages)
        for query in queries
    ]


async def _decisions(
    context: ControlPlaneContext, namespace: str, queries: Sequence[Query | Bypass], caller: Caller
) -> list[_Decided]:
    """Of each query the decision, and what explains it."""
    to_decide = [query for query in queries if isinstance(query, Query)]
    decided: list[_Decided] = []
    async with context.model_threads.time_limit("the decision on these queries"):
        for start in range(0, len(to_decide), SLICE_QUERIES):
            batch = to_decide[start : start + SLICE_QUERIES]
            decide = partial(_decided, context, namespace, batch, caller)
            decided += await context.model_threads.run(decide)
    decisions = iter(decided)
    return [
        _Decided(decision=RouteDecision(route=Route.BYPASS, reason=query.reason))
        if isinstance(query, Bypass)
        else next(decisions)
        for query in queries
    ]


def _decided(
    context: ControlPlaneContext, namespace: str, queries: Sequence[Query], caller: Caller
) -> list[_Decided]:
    decisions = context.router.decide(namespace, queries, caller=caller)
    for_others = context.router.for_others(namespace, queries, caller)
    return [
        _Decided(
            decision=decision,
            on_trial=_decided_on_trial(context.shadow, namespace, query, decision, caller),
            for_others=others,
        )
        for query, decision, others in zip(queries, decisions, for_others, strict=True)
    ]


def _decided_on_trial(
    shadow: Shadow | None, namespace: str, query: Query, decision: RouteDecision, caller: Caller
) -> RouteDecision | None:
    if shadow is None or not decision.candidates:
        return None
    try:
        return shadow.decide(namespace, query, decision, caller.labels)
    except ModelUnavailableError:  # what is on trial must not fail the call
        log.warning("the scope classifier on trial failed", exc_info=True)
        return None


def _on_trial(decision: RouteDecision | None) -> ScopeOnTrial | None:
    if decision is None or decision.scope_threshold is None:
        return None
    edit = decision.scoped_edit
    return ScopeOnTrial(
        in_scope=edit is not None,
        edit_id=None if edit is None else edit.id,
        scope_probability=decision.scope_probability,
        scope_threshold=decision.scope_threshold,
    )


def _read_query(query: Query | Bypass, decision: RouteDecision) -> ReadQuery | None:
    if isinstance(query, Bypass):
        return None
    return ReadQuery(
        text=query.text,
        context=list(query.context),
        instructions=query.instructions,
        question=decision.question,
    )


def _scope_decision(query: Query | Bypass, decided: _Decided) -> ScopeDecision:
    """`decided` in the form of the API."""
    decision = decided.decision
    return ScopeDecision(
        in_scope=decision.in_scope,
        route=decision.route,
        reason=decision.reason,
        edit_id=decision.edit.id if decision.edit else None,
        edit_version=decision.edit.version if decision.edit else None,
        withheld_edit_id=decision.withheld.id if decision.withheld else None,
        context_edit_ids=[edit.id for edit in decision.context_edits],
        parts=[ScopePart(text=part.query.text, edit_id=part.edit.id) for part in decision.parts],
        scope_probability=decision.scope_probability,
        scope_threshold=decision.scope_threshold,
        similarity=decision.similarity,
        shadow=_on_trial(decided.on_trial),
        read_as=_read_query(query, decision),
        candidates=[_scope_candidate(candidate) for candidate in decision.candidates],
        other_audiences=[_scope_candidate(candidate) for candidate in decided.for_others],
    )


def _scope_candidate(candidate: ScoredCandidate) -> ScopeCandidate:
    return ScopeCandidate(
        edit_id=candidate.edit.id,
        edit_version=candidate.edit.version,
        prompt=candidate.edit.prompt,
        target_new=candidate.edit.target_new,
        form=candidate.form,
        similarity=candidate.similarity,
        scope_probability=candidate.scope_probability,
        scope_threshold=candidate.scope_threshold,
        depends_probability=candidate.depends_probability,
        audience=candidate.edit.audience,
    )
