"""Asks a method the probes of cases, and reads what it makes of right answers. The only place that does."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from training.baselines.base import EditingMethod, Reading
from training.baselines.causal_model import Forced
from training.baselines.context import InContext
from training.evaluation.answers.methods.base_outputs import (
    BaseOutputs,
    answered,
    divergence,
    next_log_probs,
    over_readings,
)
from training.evaluation.answers.methods.batches import Batches
from training.evaluation.answers.methods.outcomes import Group, ProbeOutcome
from training.evaluation.answers.methods.plan import PlannedCase, PlannedProbe

_OF_THE_PROMPT = (Group.RELIABILITY, Group.GENERALIZATION)
_FORCED = (*_OF_THE_PROMPT, Group.PORTABILITY)


def probe_outcomes(
    method: EditingMethod,
    cases: Sequence[PlannedCase],
    base: BaseOutputs,
    batches: Batches,
    *,
    max_tokens: int,
) -> list[tuple[ProbeOutcome, ...]]:
    """The outcomes of each case, in order."""
    probes = [probe for case in cases for probe in case.probes]
    replies = {
        **answered(method, _of_kind(probes, is_open=False), batches, max_tokens=max_tokens),
        **answered(method, _of_kind(probes, is_open=True), batches, max_tokens=max_tokens),
    }
    pairs = [(case, probe) for case in cases for probe in case.probes]
    kl_nats = _divergences(method, [probe for _, probe in pairs], base, batches)
    forced = _forced(method, pairs, batches)
    outcomes = iter(
        ProbeOutcome(
            group=probe.group,
            kind=probe.kind,
            text=probe.text,
            answers=probe.answers,
            rival_answers=case.rival_answers if probe.group in _OF_THE_PROMPT else (),
            verdict=probe.verdict,
            is_ambiguous=probe.is_ambiguous,
            reply=replies[probe],
            base_reply=base[probe].reply,
            kl_nats=kl_nats.get(probe),
            is_top_share=_mean(forced.get((probe, probe.answers[:1])), "is_top_T"),
            mean_log_prob=_mean(forced.get((probe, probe.answers[:1])), "log_probs_T"),
            true_mean_log_prob=_mean(forced.get((probe, _former(case, probe))), "log_probs_T"),
        )
        for case, probe in pairs
    )
    return [tuple(next(outcomes) for _ in case.probes) for case in cases]


def name_governing_edits(method: EditingMethod, cases: Sequence[PlannedCase]) -> None:
    """Say to the upper row, and to no other method, which edits govern which texts."""
    if isinstance(method, InContext):
        method.governing = {
            probe.text: (case.case.edit, *case.case.companions)
            for case in cases
            for probe in case.probes
            if probe.group is not Group.LOCALITY
        }


def _of_kind(probes: Sequence[PlannedProbe], *, is_open: bool) -> list[PlannedProbe]:
    return [probe for probe in dict.fromkeys(probes) if (probe.group is Group.FLUENCY) is is_open]


def _divergences(
    method: EditingMethod, probes: Sequence[PlannedProbe], base: BaseOutputs, batches: Batches
) -> dict[PlannedProbe, float]:
    local = [probe for probe in dict.fromkeys(probes) if probe.group is Group.LOCALITY]
    readings = [method.reading(probe.text) for probe in local]
    before = {id(reading): base[probe].likeliest for reading, probe in zip(readings, local, strict=True)}

    def work(part: Sequence[Reading]) -> list[float]:
        return [
            divergence(before[id(reading)], after_V)
            for reading, after_V in zip(part, next_log_probs(part), strict=True)
        ]

    return dict(zip(local, over_readings(readings, batches, work), strict=True))


def _forced(
    method: EditingMethod, pairs: Sequence[tuple[PlannedCase, PlannedProbe]], batches: Batches
) -> dict[tuple[PlannedProbe, tuple[str, ...]], Forced]:
    """Of each probe and answer how the answer is read."""
    wanted = [
        (probe, answers)
        for case, probe in pairs
        if probe.group in _FORCED and probe.verdict is None
        for answers in dict.fromkeys([probe.answers[:1], _former(case, probe)])
        if answers
    ]
    readings = [method.reading(probe.text) for probe, _ in wanted]
    answer_of = {id(reading): answers[0] for reading, (_, answers) in zip(readings, wanted, strict=True)}

    @torch.no_grad()
    def work(part: Sequence[Reading]) -> list[Forced]:
        texts = [(reading.text, answer_of[id(reading)]) for reading in part]
        return part[0].model.forced(texts, at_once=len(part))

    return dict(zip(wanted, over_readings(readings, batches, work), strict=True))


def _former(case: PlannedCase, probe: PlannedProbe) -> tuple[str, ...]:
    former = case.case.edit.target_true
    return (former,) if former and probe.group in _OF_THE_PROMPT else ()


def _mean(forced: Forced | None, field: str) -> float | None:
    return None if forced is None else float(getattr(forced, field).double().mean())


def first_token_ms(method: EditingMethod, queries: Sequence[str], *, repeats: int = 2) -> tuple[float, ...]:
    """Milliseconds to the first token of each query, one at a time: the least of `repeats`.

    The least, since whatever else the machine does only adds to it.
    """
    return tuple(min(_timed_ms(method, query) for _ in range(repeats)) for query in queries)


def _timed_ms(method: EditingMethod, query: str) -> float:
    begun = time.perf_counter()
    method.answers([query], max_tokens=1)
    return (time.perf_counter() - begun) * 1_000


def added_ms(base_ms: Sequence[float], edited_ms: Sequence[float]) -> float:
    """The median difference of paired times; NaN without any."""
    differences = [after - before for before, after in zip(base_ms, edited_ms, strict=True)]
    return statistics.median(differences) if differences else float("nan")
