"""GET /serac/v1/traffic/near-misses: requests nearest to the threshold, and what moving it would change."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, get
from litestar.params import QueryParameter

from serac_gateway.control_plane.http.dependencies import Context, ControlPlaneContext
from serac_gateway.control_plane.http.parameters import Namespace, problems
from serac_gateway.domain.edits import Edit, EditKind
from serac_gateway.domain.feedback import RememberedRequest

MAX_LISTED = 500
_STEPS = tuple(step / 20 for step in range(1, 20))
"""Thresholds that are tried, 0.05 to 0.95."""


class NearMiss(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose probability lies near the threshold."""

    request: RememberedRequest
    edit_id: str
    """The edit that governed it, or else the most probable one."""
    prompt: str
    """Of that edit as it is now."""
    scope_threshold: float
    """Of that edit."""
    fired: bool
    """Whether it was decided to be in scope of it, also of one on trial."""


class MovedThreshold(msgspec.Struct, frozen=True, kw_only=True):
    """What another `scope_threshold` would have done to the latest requests."""

    scope_threshold: float
    more: int
    """Requests in scope that were not."""
    fewer: int
    """Requests that were in scope and would not be."""


class NearMisses(msgspec.Struct, frozen=True, kw_only=True):
    """The latest requests of the namespace that came near to an edit in force."""

    requests: int
    """That this process remembers, with a probability, and whose edit is still in force."""
    scope_threshold: float
    suppression_threshold: float
    near_misses: list[NearMiss]
    """The nearest to their threshold first."""
    moved: list[MovedThreshold]
    """By threshold; about facts and instructions, by the probabilities recorded with each request."""


class NearMissController(Controller):
    """/serac/v1/traffic/near-misses."""

    tags = ("feedback",)

    @get(
        "/traffic/near-misses",
        summary="List the latest requests nearest to the threshold",
        description="Of those that this gateway process remembers (`feedback.remembered_requests`), by the"
        " distance of their probability from the threshold, on either side; a report on one is a"
        " `POST /feedback` with its `request_id`. And how many of all of them another threshold would have"
        " put in scope, or out of it. Texts are known where the namespace's traffic is recorded.",
        responses=problems(400, 503),
    )
    async def near_misses(
        self,
        namespace: Namespace,
        context: Context,
        limit: Annotated[
            int, QueryParameter(ge=1, le=MAX_LISTED, description="How many to list at most")
        ] = 20,
    ) -> NearMisses:
        """What the process remembers of the namespace."""
        thresholds = context.router.thresholds
        judged = [
            (request, edit, request.scope_probability)
            for request in context.recent_requests.all(namespace)
            if request.scope_probability is not None
            and (edit := _edit_of(context, namespace, request)) is not None
        ]
        listed = sorted(judged, key=lambda each: abs(each[2] - thresholds.of(each[1])))[:limit]
        moving = [
            (probability, request.edit_id is not None)
            for request, edit, probability in judged
            if edit.kind is not EditKind.SUPPRESSION
        ]
        return NearMisses(
            requests=len(judged),
            scope_threshold=thresholds.scope,
            suppression_threshold=thresholds.suppression,
            near_misses=[
                NearMiss(
                    request=request,
                    edit_id=edit.id,
                    prompt=edit.prompt,
                    scope_threshold=thresholds.of(edit),
                    fired=request.edit_id is not None,
                )
                for request, edit, _ in listed
            ],
            moved=[
                MovedThreshold(
                    scope_threshold=step,
                    more=sum(probability >= step and not fired for probability, fired in moving),
                    fewer=sum(probability < step and fired for probability, fired in moving),
                )
                for step in _STEPS
            ],
        )


def _edit_of(context: ControlPlaneContext, namespace: str, request: RememberedRequest) -> Edit | None:
    edit_id = request.edit_id or request.nearest_edit_id
    return None if edit_id is None else context.active_edits.current(namespace, edit_id)
