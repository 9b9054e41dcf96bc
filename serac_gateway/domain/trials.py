"""Canaries as experiments: which arm a request is in, and what is observed of it."""

from __future__ import annotations

import hashlib
from enum import StrEnum

import msgspec

from serac_gateway.domain.edits import AwareDatetime, Edit, EditState


class Arm(StrEnum):
    """On which side of a canary a request is, by its user."""

    TREATMENT = "treatment"
    """The user has the edit."""
    CONTROL = "control"
    """The user does not; the edit would govern if it were live."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A request in the scope of a canary."""

    edit_id: str
    edit_version: int
    arm: Arm
    caller: str
    """A digest of the user's name, another one for each edit: it tells users apart and names nobody."""


class Outcome(StrEnum):
    """How a request of a trial ended."""

    ANSWERED = "answered"
    FAILED = "failed"
    """No response, or a status of 400 and above."""
    LEFT = "left"
    """Its client left before the reply was complete."""


class TrialObservation(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a request of a trial."""

    arm: Arm
    caller: str
    outcome: Outcome
    total_ms: float
    """From the request's first line to the end of the reply."""
    at: AwareDatetime
    query: str | None = None
    """Its text, redacted, where the namespace's traffic is recorded."""
    answer: str | None = None
    """The reply's text, likewise; None: it is not recorded, or was not read."""


def trial_of(edit: Edit, arm: Arm, caller_name: str) -> Trial | None:
    """The trial that a request of that user is in; None if the edit is no canary."""
    if edit.state is not EditState.CANARY:
        return None
    digest = hashlib.sha256(f"{edit.id}\n{caller_name}".encode("utf-8", "surrogatepass")).hexdigest()
    return Trial(edit_id=edit.id, edit_version=edit.version, arm=arm, caller=digest[:16])
