"""What users report about single requests: that an edit should have fired, or should not have.

A report speaks of a request that is remembered, so that it holds what was decided, and becomes an example for
the training of the scope classifier where the text of the query is known.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from serac_gateway.domain.edits import AwareDatetime
from serac_gateway.domain.provenance import MAX_NOTE_CHARS
from serac_gateway.domain.trials import Trial
from serac_gateway.errors import InvalidRequestError

MAX_COMMENT_CHARS = MAX_NOTE_CHARS


class FeedbackVerdict(StrEnum):
    """What was right or wrong about a request."""

    SHOULD_HAVE_FIRED = "should_have_fired"
    """An edit governs it, and the base model answered, or another edit."""
    SHOULD_NOT_HAVE_FIRED = "should_not_have_fired"
    """No edit governs it, and one answered."""
    WRONG_ANSWER = "wrong_answer"
    """The right edit governed it, and the answer was not what it says."""
    RIGHT = "right"
    """The request went where it should."""


class RememberedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What this process remembers of a request that was decided."""

    request_id: str
    at: AwareDatetime
    route: str
    reason: str
    edit_id: str | None
    """The edit in whose scope it was decided to be, also one that was withheld as a shadow or canary."""
    edit_version: int | None
    nearest_edit_id: str | None
    """The most probable candidate, whether or not it is in scope."""
    scope_probability: float | None
    similarity: float | None
    query: str | None = None
    """Its text, redacted, where the namespace's traffic is recorded or the report says it."""
    context: tuple[str, ...] = ()
    """The turns before it that it was read with, likewise."""
    instructions: str = ""
    """The system prompt that it was read with, likewise."""
    trial: Trial | None = None
    """The canary that it was in the scope of."""


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """A report on a request."""

    verdict: FeedbackVerdict
    edit_id: str | None = None
    """The edit that should have fired, if the report names it."""
    comment: str | None = None
    at: AwareDatetime
    key_id: str | None = None
    """The API key that reported."""
    request: RememberedRequest


class TrainingRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the traffic that `serac-train` reads: a query, and the edit in whose scope it is."""

    query: str
    edit_id: str | None
    context: tuple[str, ...] = ()
    """The turns before it that it was read with, oldest first."""
    instructions: str = ""
    """The system prompt."""


def checked(feedback: Feedback) -> Feedback:
    """The report itself, if it can be true of its request.

    Raises:
        InvalidRequestError: It is of an edit that fired, and none did; or the comment is too long.
    """
    request = feedback.request
    if len(feedback.comment or "") > MAX_COMMENT_CHARS:
        raise InvalidRequestError(
            f"comment has {len(feedback.comment or ''):,} characters; the limit is {MAX_COMMENT_CHARS:,}",
            field="comment",
            details={"limit": MAX_COMMENT_CHARS},
        )
    needs_edit = (FeedbackVerdict.SHOULD_NOT_HAVE_FIRED, FeedbackVerdict.WRONG_ANSWER)
    if feedback.verdict in needs_edit and request.edit_id is None and request.route != "in_context":
        raise InvalidRequestError(
            f"verdict {feedback.verdict.value!r} is of an edit that fired, and at request"
            f" {request.request_id!r} none did (route {request.route!r}); use 'should_have_fired' or 'right'",
            field="verdict",
            details={"value": feedback.verdict.value},
        )
    return feedback


def training_row(feedback: Feedback) -> TrainingRow | None:
    """What the report teaches the scope classifier; None if the text or the right edit is not known."""
    request = feedback.request
    if request.query is None or not request.query.strip():
        return None
    edit_id = request.edit_id
    if feedback.verdict is FeedbackVerdict.SHOULD_NOT_HAVE_FIRED:
        edit_id = None
    elif feedback.verdict is FeedbackVerdict.SHOULD_HAVE_FIRED:
        edit_id = feedback.edit_id or request.nearest_edit_id
        if edit_id is None:
            return None
    return TrainingRow(
        query=request.query, edit_id=edit_id, context=request.context, instructions=request.instructions
    )
