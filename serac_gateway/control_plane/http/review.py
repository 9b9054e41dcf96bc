"""GET /serac/v1/edits:due: the edits that somebody should look at again, in order of date."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated

import msgspec
from litestar import Controller, get
from litestar.params import QueryParameter

from serac_gateway.control_plane.http.dependencies import Context
from serac_gateway.control_plane.http.parameters import (
    AudienceFilter,
    AuthorFilter,
    KindFilter,
    Namespace,
    PageLimit,
    StateFilter,
    TextFilter,
    problems,
)
from serac_gateway.control_plane.http.schemas import DEFAULT_PAGE
from serac_gateway.control_plane.search import EditFilter
from serac_gateway.domain.audiences import audience_of_texts
from serac_gateway.domain.edits import Edit, is_edit_id
from serac_gateway.errors import InvalidRequestError

MAX_WITHIN_DAYS = 36_500


class DuePage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of edits whose review is due; all of them are in force or on trial."""

    edits: list[Edit]
    """By `review_by`, the longest overdue first; of one day by id."""
    next_cursor: str | None
    """Pass it to get the following page; null: this was the last."""
    today: date
    """The gateway's day (UTC): what is to be reviewed by an earlier one is overdue."""


class ReviewController(Controller):
    """/serac/v1/edits:due."""

    tags = ("edits",)

    @get(
        "/edits:due",
        summary="List edits that are due for review",
        description="Those that are live or on trial and whose `review_by` has come, or comes `within_days`."
        " They stay in force: a change of `review_by` is what takes them from the list. The other filters are"
        " those of `GET /edits`.",
        responses=problems(400, 503),
    )
    async def due(
        self,
        namespace: Namespace,
        context: Context,
        within_days: Annotated[
            int, QueryParameter(ge=0, le=MAX_WITHIN_DAYS, description="How far ahead to look; 0: today")
        ] = 0,
        cursor: Annotated[str | None, QueryParameter(description="`next_cursor` of the page before")] = None,
        limit: PageLimit = DEFAULT_PAGE,
        q: TextFilter = None,
        edit_state: StateFilter = None,
        kind: KindFilter = None,
        author: AuthorFilter = None,
        audience: AudienceFilter = None,
    ) -> DuePage:
        """One page of them, as they are in force in this process."""
        of_audience = audience_of_texts((audience or "").split())
        wanted = EditFilter(text=q, kind=kind, author=author, audience=of_audience)
        today = datetime.now(UTC).date()
        last = min(date.max.toordinal(), today.toordinal() + within_days)
        due = [
            edit
            for edit in context.active_edits.due(namespace, date.fromordinal(last))
            if edit_state in (None, edit.state) and wanted.admits(edit)
        ]
        if cursor is not None:
            after = _place_of(cursor)
            due = [edit for edit in due if _place(edit) > after]
        more = len(due) > limit
        edits = due[:limit]
        return DuePage(edits=edits, next_cursor=_cursor(edits[-1]) if more else None, today=today)


def _place(edit: Edit) -> tuple[date, str]:
    assert edit.review_by is not None
    return edit.review_by, edit.id


def _cursor(edit: Edit) -> str:
    day, edit_id = _place(edit)
    return f"{day.isoformat()}_{edit_id}"


def _place_of(cursor: str) -> tuple[date, str]:
    day, _, edit_id = cursor.partition("_")
    try:
        if not is_edit_id(edit_id):
            raise ValueError("it names no edit")
        return date.fromisoformat(day), edit_id
    except ValueError as exc:
        raise InvalidRequestError(
            f"cursor {cursor[:80]!r} is not allowed; take the next_cursor of the page before",
            field="cursor",
            details={"value": cursor[:80]},
        ) from exc
