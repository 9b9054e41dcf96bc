"""The lines of a run that measures the scope classifier: a case with the decision on each of its probes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from training.benchmarks.base import Probe
from training.evaluation.outcomes import LineFolder
from training.evaluation.scope.deciders import Decision


class ProbeOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One probe and what was decided."""

    kind: str
    text: str
    in_scope: bool
    contested: bool = False
    context: int = 0
    """How many earlier turns it has."""
    fired: str | None = None
    """The edit that fired."""
    best: str | None = None
    """The most probable candidate."""
    scope_probability: float | None = None
    """Of the most probable candidate."""
    similarity: float | None = None
    """Of the most similar candidate."""
    rank: int | None = None
    """Of the case's own edit among the candidates by similarity, from 1; None: it was none of them."""
    own_probability: float | None = None
    """Of the case's own edit, if it was a candidate."""


class CaseOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One case: its edit and its probes. Traffic has a case a probe, without an edit."""

    case: str
    prompt: str | None = None
    target_new: str | None = None
    relation: str | None = None
    rivals: tuple[str, ...] = ()
    """Cases that ask the same: firing with one of them is right too."""
    probes: tuple[ProbeOutcome, ...]


def probe_outcome(probe: Probe, own_id: str | None, decision: Decision) -> ProbeOutcome:
    """The record of one decision."""
    by_similarity = sorted(decision.candidates, key=lambda candidate: -candidate.similarity)
    ids = [candidate.edit_id for candidate in by_similarity]
    best = decision.candidates[0] if decision.candidates else None
    own = next((candidate for candidate in decision.candidates if candidate.edit_id == own_id), None)
    return ProbeOutcome(
        kind=probe.kind,
        text=probe.text,
        in_scope=probe.in_scope,
        contested=probe.contested,
        context=len(probe.context),
        fired=decision.edit_id,
        best=best.edit_id if best else None,
        scope_probability=best.scope_probability if best else None,
        similarity=by_similarity[0].similarity if by_similarity else None,
        rank=ids.index(own_id) + 1 if own_id in ids else None,
        own_probability=own.scope_probability if own else None,
    )


class RunFolder(LineFolder[CaseOutcome]):
    """A run that measured the scope classifier."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, CaseOutcome)
