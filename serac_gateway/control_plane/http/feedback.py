"""Reports on requests over HTTP: /serac/v1/feedback, and their export as training data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from litestar import Controller, delete, get, post
from litestar.openapi.spec import Example
from litestar.params import BodyKwarg, QueryParameter
from litestar.response import Stream

from serac_gateway.auth.principals import Role
from serac_gateway.control_plane.http.dependencies import Context, ControlPlaneContext
from serac_gateway.control_plane.http.edit_streams import NDJSON
from serac_gateway.control_plane.http.guards import NEEDED_ROLE, Sender
from serac_gateway.control_plane.http.parameters import Namespace, problems
from serac_gateway.domain.edits import check_edit_id
from serac_gateway.domain.feedback import Feedback, FeedbackVerdict, RememberedRequest, checked, training_row
from serac_gateway.domain.queries import MAX_QUERY_CHARS, Query
from serac_gateway.errors import RequestNotFoundError

_EXAMPLE = Example(
    summary="The base model answered what an edit governs",
    value={
        "request_id": "req_0f6c4ba2b6b14a9ab1d7d4a2",
        "verdict": "should_have_fired",
        "query": "Who runs the harbour office of Marrowby?",
        "comment": "It named the old head.",
    },
)


class FeedbackReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A report on a request."""

    request_id: Annotated[str, msgspec.Meta(description="The response's x-serac-request-id or x-request-id")]
    verdict: FeedbackVerdict
    edit_id: str | None = None
    """With should_have_fired: which edit; without it the most probable candidate is meant."""
    query: str | None = None
    """The text of the query. It is stored redacted; training needs it where traffic is not recorded."""
    comment: str | None = None


class ClearedFeedback(msgspec.Struct, frozen=True, kw_only=True):
    """What was deleted."""

    cleared: int


class FeedbackController(Controller):
    """/serac/v1/feedback."""

    tags = ("feedback",)

    @post(
        "/feedback",
        status_code=201,
        summary="Report on a request",
        description="Says whether the right edit governed a request that this gateway process decided on"
        " lately. The last report on a request is the one that holds. A key of role chat is enough for its"
        " own requests; its reply leaves the decision out.",
        responses=problems(400, 404, 503),
        opt={NEEDED_ROLE: Role.CHAT},
    )
    async def report(
        self,
        data: Annotated[FeedbackReport, BodyKwarg(examples=[_EXAMPLE])],
        namespace: Namespace,
        context: Context,
        principal: Sender,
    ) -> Feedback:
        """Store a report, and return it with the decision on its request."""
        reads_decisions = principal.role.allows(Role.EDIT)
        request = context.recent_requests.get(
            namespace, data.request_id, only_of_key=None if reads_decisions else principal.key_id
        )
        if request is None:
            raise RequestNotFoundError(
                f"request {data.request_id[:128]!r} is not among the latest"
                f" {context.feedback.remembered_requests:,} that this gateway process decided on in namespace"
                f" {namespace!r}{'' if reads_decisions else ' for this API key'}; give the x-serac-request-id"
                " or x-request-id of its response, soon after it, to the same process",
                field="request_id",
            )
        feedback = checked(
            Feedback(
                verdict=data.verdict,
                edit_id=None if data.edit_id is None else check_edit_id(data.edit_id),
                comment=data.comment,
                at=datetime.now(UTC),
                key_id=principal.key_id,
                request=await asyncio.to_thread(_with_query, context, request, data.query),
            )
        )
        await context.store.feedback().add(namespace, feedback, max_reports=context.feedback.max_reports)
        context.instruments.add_feedback(namespace, feedback.verdict)
        return feedback if reads_decisions else _without_decision(feedback)

    @get(
        "/feedback:export",
        media_type=NDJSON,
        summary="Export the reports as NDJSON",
        description="One a line, oldest first. With `training=true` as the traffic that `serac-train` reads:"
        ' `{"query", "edit_id"}`, one for each request, of the reports whose text is known and whose edit is'
        " still in force.",
        responses=problems(400, 503),
    )
    async def export(
        self,
        namespace: Namespace,
        context: Context,
        training: Annotated[bool, QueryParameter(description="As training data")] = False,
    ) -> Stream:
        """All reports of the namespace that are kept."""
        await context.store.ping()  # so that a store that fails gets a status, not a broken stream
        lines = _training_rows(context, namespace) if training else _reports(context, namespace)
        return Stream(lines, media_type=NDJSON)

    @delete("/feedback", status_code=200, summary="Delete the reports", responses=problems(400, 503))
    async def clear(self, namespace: Namespace, context: Context) -> ClearedFeedback:
        """Delete all reports of the namespace."""
        return ClearedFeedback(cleared=await context.store.feedback().clear(namespace))


def _without_decision(feedback: Feedback) -> Feedback:
    """The report as a key of role chat sees it: with the ids and probabilities it could search for edits."""
    request = feedback.request
    seen = RememberedRequest(
        request_id=request.request_id,
        at=request.at,
        route=request.route,
        reason="",
        edit_id=None,
        edit_version=None,
        nearest_edit_id=None,
        scope_probability=None,
        similarity=None,
    )
    return msgspec.structs.replace(feedback, request=seen)


def _with_query(
    context: ControlPlaneContext, request: RememberedRequest, text: str | None
) -> RememberedRequest:
    """For worker threads: the operator's patterns may take their time on the text."""
    if text is None or request.query is not None:
        return request
    return msgspec.structs.replace(
        request, query=context.traffic.redacted(Query(text=text[:MAX_QUERY_CHARS])).text
    )


async def _reports(context: ControlPlaneContext, namespace: str) -> AsyncIterator[bytes]:
    async for feedback in context.store.feedback().all(namespace):
        yield msgspec.json.encode(feedback) + b"\n"


async def _training_rows(context: ControlPlaneContext, namespace: str) -> AsyncIterator[bytes]:
    reports = context.store.feedback().all(namespace)
    last = {feedback.request.request_id: feedback async for feedback in reports}
    for feedback in last.values():
        row = training_row(feedback)
        known = row is not None and (
            row.edit_id is None or context.active_edits.current(namespace, row.edit_id) is not None
        )
        if known:
            yield msgspec.json.encode(row) + b"\n"
