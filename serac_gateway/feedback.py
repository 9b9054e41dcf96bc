"""What users report about single requests: that an edit should have fired, or should not have."""

from __future__ import annotations

from enum import StrEnum


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
