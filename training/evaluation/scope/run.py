"""Runs a benchmark against a decider: store all edits, ask all probes, one JSON line a case."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from training.benchmarks.base import Benchmark, Case, Probe, chosen, prepared
from training.evaluation.outcomes import settings_of
from training.evaluation.scope.deciders import Decider, Decision
from training.evaluation.scope.outcomes import CaseOutcome, RunFolder, probe_outcome
from training.evaluation.terminal import OnProgress, silent

_PROBES_A_CALL = 64


async def run(
    benchmark: Benchmark,
    decider: Decider,
    folder: Path,
    *,
    edits: int | None = None,
    seed: int = 0,
    ask: int | None = None,
    path: Path | None = None,
    on_progress: OnProgress = silent,
) -> RunFolder:
    """Measure; a run that was interrupted goes on where it stopped.

    All `edits` are stored; `ask` limits the cases, and the prompts of traffic, whose probes are asked.

    Raises:
        ConfigError: The folder holds another run, or an edit was refused.
    """
    subset = prepared(chosen(benchmark, edits=edits, seed=seed))
    results = RunFolder(folder)
    done = results.begin(
        settings_of(
            subset,
            path=path,
            edits=edits,
            ask=ask,
            seed=seed,
            decider=decider.about,
            stored_edits=len(subset.cases),
            measures="scope",
        )
    )
    remaining = [unit for unit in _drawn(subset, ask, seed) if unit[0] not in done]
    if not remaining:
        return results
    await decider.store(
        [case.edit for case in subset.cases],
        lambda count: on_progress("storing edits", count, len(subset.cases)),
    )
    finished = 0
    async for outcomes in _outcomes(decider, remaining):
        results.append(outcomes)
        finished += len(outcomes)
        on_progress("asking", finished, len(remaining))
    return results


async def outcomes_of(benchmark: Benchmark, decider: Decider) -> list[CaseOutcome]:
    """Ask all probes of a benchmark whose edits `decider` has stored."""
    return [outcome async for batch in _outcomes(decider, list(_units(benchmark))) for outcome in batch]


Unit = tuple[str, Case | None, Sequence[Probe]]
"""What becomes one line: the case's id, the case (None: traffic), its probes."""


def _drawn(benchmark: Benchmark, count: int | None, seed: int) -> list[Unit]:
    """All units, or `count` of those with probes."""
    units = list(_units(benchmark))
    if count is None:
        return units
    with_probes = [unit for unit in units if unit[2]]
    return random.Random(seed).sample(with_probes, min(count, len(with_probes)))


def _units(benchmark: Benchmark) -> Iterator[Unit]:
    for case in benchmark.cases:
        yield case.id, case, case.probes
    for number, probe in enumerate(benchmark.traffic):
        yield f"traffic-{number}", None, (probe,)


async def _outcomes(decider: Decider, units: Sequence[Unit]) -> AsyncIterator[list[CaseOutcome]]:
    for batch in _batches(units):
        decisions = iter(await decider.decide([probe for _, _, probes in batch for probe in probes]))
        yield [_outcome(unit, decisions) for unit in batch]


def _batches(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    batch: list[Unit] = []
    size = 0
    for unit in units:
        if batch and size + len(unit[2]) > _PROBES_A_CALL:
            yield batch
            batch, size = [], 0
        batch.append(unit)
        size += len(unit[2])
    if batch:
        yield batch


def _outcome(unit: Unit, decisions: Iterator[Decision]) -> CaseOutcome:
    case_id, case, probes = unit
    return CaseOutcome(
        case=case_id,
        prompt=case.edit.prompt if case else None,
        target_new=case.edit.target_new if case else None,
        relation=case.relation if case else None,
        rivals=case.rivals if case else (),
        probes=tuple(probe_outcome(probe, case.id if case else None, next(decisions)) for probe in probes),
    )
