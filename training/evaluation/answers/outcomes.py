"""What a run of the answer metrics leaves behind: a JSON line a case, with every reply as it came."""

from __future__ import annotations

from pathlib import Path

import msgspec

from serac_gateway.domain.edits import EditKind
from training.evaluation.outcomes import LineFolder


class ProbeAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One probe and its reply. Whether that is right is judged from the texts, see summary.py."""

    kind: str
    text: str
    in_scope: bool
    entailed: bool = False
    """Its answer follows from the edit without being it (portability)."""
    contested: bool = False
    context: int = 0
    """How many earlier turns it has."""
    answers: tuple[str, ...] = ()
    """What a right reply contains, any of it."""
    rival_answers: tuple[str, ...] = ()
    """New answers of other cases that ask the same: right too, see `Case.rivals`."""
    verdict: bool | None = None
    """It wants yes (True) or no instead."""
    reply: str
    route: str
    edit_id: str | None = None
    """The edit that fired, if the reply names it."""
    tokens: int | None = None
    """Of the reply, as the server counts them."""
    first_token_ms: float | None = None
    """Until the first text of a streamed reply."""
    total_ms: float
    base_reply: str | None = None
    """The upstream's own reply to the same request, asked where it must not change."""
    identical: bool | None = None
    """Whether that and the reply are the same bytes (but for id and time)."""
    token_accuracy: float | None = None
    """Teacher-forced, see teacher_forcing.py."""


class CaseAnswers(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One case: its edit and its probes. Traffic has a case a probe, without an edit."""

    case: str
    edit_kind: EditKind = EditKind.FACT
    prompt: str | None = None
    target_new: str | None = None
    target_true: str | None = None
    relation: str | None = None
    probes: tuple[ProbeAnswer, ...]


class AnswerFolder(LineFolder[CaseAnswers]):
    """A run that measured answers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, CaseAnswers)
