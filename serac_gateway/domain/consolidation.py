"""What a consolidation reports: of each edit, what the base model answered before and after it learnt them.

`serac-train consolidate` writes the report, `serac edits retire` reads it.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Any, Literal

import msgspec

from serac_gateway.domain.edits import AwareDatetime, EditKind
from serac_gateway.errors import InvalidRequestError


class Absorption(StrEnum):
    """How far an edit has become the base model's own."""

    ABSORBED = "absorbed"
    """Its prompt, wordings that were trained on and wordings that were held back all get its answer, and none
    of its neighbours does."""
    PARTIAL = "partial"
    """Some wordings get its answer, or a neighbour does as well, or no wording could be held back."""
    NEEDS_GATEWAY = "needs_gateway"
    """No wording gets its answer."""
    CONFLICTING = "conflicting"
    """Another live edit answers the same question differently."""


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shares in 0..1 of an edit's probes, by what they ask; None: there are none."""

    prompt: float | None = None
    """Of its prompt: it gets the new answer."""
    trained: float | None = None
    """Of wordings that were trained on: they get the new answer."""
    held_back: float | None = None
    """Of wordings that were never trained on: they get the new answer."""
    neighbours: float | None = None
    """Of prompts about others: they get the text that the base model gave before any edit."""


class ConsolidatedEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version of an edit that the changed model was given, and what it made of it."""

    id: str
    version: int
    created_at: AwareDatetime
    """When the version was made: it tells apart edits of one id in two stores."""
    prompt: str
    target_new: str
    source: str | None = None
    state: Absorption
    why: str
    before: Rates
    after: Rates
    answer_before: str
    """To the prompt."""
    answer_after: str


class LeftOut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An edit that weights cannot hold; the gateway keeps it."""

    id: str
    version: int
    kind: EditKind
    why: str


class Drift(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of the model where no edit is concerned."""

    unrelated: int
    """How many unrelated prompts were asked."""
    unrelated_kept: float | None
    """Share of them that got the text of before; None: none was asked."""
    questions: int
    """How many questions of a public set were asked."""
    right_before: float | None
    """Share of them that the base model answered right."""
    right_after: float | None
    perplexity_before: float | None
    """Of the unrelated prompts' own text."""
    perplexity_after: float | None


class ConsolidationReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it; `digest` seals it."""

    format: Literal[1] = 1
    gateway: str
    """The URL that the edits were read from."""
    namespace: str
    model: str
    base_digest: str
    """Of the base model's parameters."""
    method: str
    settings: dict[str, Any]
    artefact: str
    """The folder's file with what changed."""
    artefact_digest: str
    """SHA-256 of that file."""
    made_at: AwareDatetime
    edits: tuple[ConsolidatedEdit, ...]
    left_out: tuple[LeftOut, ...]
    drift: Drift
    refusal: str | None = None
    """Why no edit counts as absorbed, though some are answered; None: nothing speaks against it."""
    digest: str = ""
    """SHA-256 of the report without it."""


def sealed(report: ConsolidationReport) -> ConsolidationReport:
    """The report with its digest."""
    return msgspec.structs.replace(report, digest=_digest(report))


def decode_report(raw: bytes) -> ConsolidationReport:
    """The report that `raw` holds.

    Raises:
        InvalidRequestError: It is no report, of another format, or not as it was written.
    """
    try:
        report = msgspec.json.decode(raw, type=ConsolidationReport)
    except (ValueError, RecursionError) as exc:  # msgspec's errors are ValueErrors
        raise InvalidRequestError(
            f"this is no report of a consolidation ({exc}); take the report.json that `serac-train"
            " consolidate` wrote",
            field="report",
        ) from exc
    if report.digest != _digest(report):
        raise InvalidRequestError(
            f"the report was changed after it was written: its digest is {report.digest[:64]!r}, that of its"
            f" content {_digest(report)!r}; take the report.json as `serac-train consolidate` wrote it",
            field="report",
        )
    return report


def _digest(report: ConsolidationReport) -> str:
    bare = msgspec.structs.replace(report, digest="")
    return hashlib.sha256(msgspec.json.encode(bare, order="deterministic")).hexdigest()
