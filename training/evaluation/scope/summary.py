"""The numbers of a run, from its outcomes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from training.evaluation.rates import Interval, KindRate, Rate, bootstrap_interval, rate
from training.evaluation.scope.metrics import (
    CurvePoint,
    expected_calibration_error,
    harmonic_mean,
    recall_at,
    threshold_curve,
)
from training.evaluation.scope.outcomes import CaseOutcome, ProbeOutcome

APART = frozenset({"prompt", "generation"})
"""Kinds that must fire and are no part of the hit rate: the edited prompt itself, and prompts whose answer
depends on the edit without asking for it (they are a matter of portability)."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one run."""

    edit_success: Rate
    """The edited prompts themselves."""
    hit: Rate
    """All other probes that must fire: the right edit did, or a rival of it."""
    hit_own: Rate
    """Rivals not counted: which of them fires is the rule for conflicts."""
    no_fire: Rate
    """Uncontested probes that must not fire: none did."""
    no_fire_with_contested: Rate
    harmonic: Interval
    """Of hit and no_fire; of edit_success and no_fire where the benchmark has no rephrased probes."""
    wrong_edit: Rate
    """Of the probes that must fire, those where another edit did."""
    recall_at_1: Rate
    recall_at_8: Rate
    """Of the right edit among the candidates by similarity, for probes that must fire."""
    calibration_error: float
    """Of the best candidate's probability against its being right."""
    kinds: tuple[KindRate, ...]


def is_right(probe: ProbeOutcome, case: CaseOutcome) -> bool:
    """In scope: the case's own edit fired, or a rival. Out of scope: none did."""
    return _governs(probe.fired, case) if probe.in_scope else probe.fired is None


def best_is_right(probe: ProbeOutcome, case: CaseOutcome) -> bool:
    """Whether the most probable candidate governs the probe."""
    return probe.in_scope and _governs(probe.best, case)


def _governs(edit_id: str | None, case: CaseOutcome) -> bool:
    return edit_id is not None and (edit_id == case.case or edit_id in case.rivals)


def summarise(outcomes: Sequence[CaseOutcome], *, seed: int = 0) -> Summary:
    """All numbers."""
    pairs = [(probe, case) for case in outcomes for probe in case.probes]
    positives = [(probe, case) for probe, case in pairs if probe.in_scope]
    rephrased = [(probe, case) for probe, case in positives if probe.kind not in APART]
    negatives = [(probe, case) for probe, case in pairs if not probe.in_scope]
    uncontested = [(probe, case) for probe, case in negatives if not probe.contested]
    low, high = bootstrap_interval(outcomes, harmonic_of, seed=seed)
    judged = [(probe, case) for probe, case in pairs if probe.kind not in APART and not probe.contested]
    return Summary(
        edit_success=_right([(probe, case) for probe, case in positives if probe.kind == "prompt"]),
        hit=_right(rephrased),
        no_fire=_right(uncontested),
        no_fire_with_contested=_right(negatives),
        harmonic=Interval(value=harmonic_of(outcomes), low=low, high=high),
        wrong_edit=rate([probe.fired is not None and not is_right(probe, case) for probe, case in positives]),
        hit_own=rate([probe.fired == case.case for probe, case in rephrased]),
        recall_at_1=recall_at([probe.rank for probe, _ in rephrased], 1),
        recall_at_8=recall_at([probe.rank for probe, _ in rephrased], 8),
        calibration_error=expected_calibration_error(
            [probe.scope_probability or 0.0 for probe, _ in judged],
            [best_is_right(probe, case) for probe, case in judged],
        ),
        kinds=_kinds(pairs),
    )


def harmonic_of(outcomes: Sequence[CaseOutcome]) -> float:
    """Harmonic mean of hit and no-fire; of the one there is, if there is only one; NaN if there is none."""
    hits: list[bool] = []
    prompts: list[bool] = []
    stays: list[bool] = []
    for case in outcomes:
        for probe in case.probes:
            if probe.contested or probe.kind == "generation":
                continue
            group = stays if not probe.in_scope else prompts if probe.kind == "prompt" else hits
            group.append(is_right(probe, case))
    fires = hits or prompts
    if not fires or not stays:
        only = fires or stays
        return sum(only) / len(only) if only else math.nan
    return harmonic_mean(sum(fires) / len(fires), sum(stays) / len(stays))


def curve_of(outcomes: Sequence[CaseOutcome]) -> list[CurvePoint]:
    """Rates by threshold, over rephrased probes and uncontested negatives."""
    positives = []
    negatives = []
    for case in outcomes:
        for probe in case.probes:
            if probe.kind in APART or probe.contested:
                continue
            probability = probe.scope_probability or 0.0
            if probe.in_scope:
                positives.append((probability, best_is_right(probe, case)))
            else:
                negatives.append(probability)
    return threshold_curve(positives, negatives)


def _right(probes: Sequence[tuple[ProbeOutcome, CaseOutcome]]) -> Rate:
    return rate([is_right(probe, case) for probe, case in probes])


def _kinds(pairs: Sequence[tuple[ProbeOutcome, CaseOutcome]]) -> tuple[KindRate, ...]:
    by_kind: dict[tuple[str, bool], list[tuple[ProbeOutcome, CaseOutcome]]] = defaultdict(list)
    for probe, case in pairs:
        if not probe.contested:
            by_kind[probe.kind, probe.in_scope].append((probe, case))
    return tuple(
        KindRate(kind=kind, in_scope=in_scope, right=_right(probes))
        for (kind, in_scope), probes in sorted(by_kind.items())
    )
