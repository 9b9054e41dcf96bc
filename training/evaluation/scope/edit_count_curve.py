"""Quality against the number of edits in the store: the same probes, among ever more edits.

Below the number of measured cases the cases are parted into many stores; above, edits that no probe mentions
fill the store up.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from matplotlib.figure import Figure

from serac_gateway.domain.edits import EditDraft
from training.benchmarks import counterfact, counterfact_hard, wikifactdiff, zsre
from training.benchmarks.base import Benchmark, Case, Role, chosen, prepared
from training.data.files import data_folder, read_rows
from training.evaluation.gateway_models import GatewayModels
from training.evaluation.scope.deciders import InProcessDecider
from training.evaluation.scope.outcomes import CaseOutcome
from training.evaluation.scope.run import outcomes_of
from training.evaluation.scope.summary import Summary, summarise
from training.evaluation.terminal import OnProgress, silent

_SETS = (zsre.load, counterfact.load, counterfact_hard.load, wikifactdiff.load)
_PATTERNS_FILE = "pararel/patterns.jsonl.gz"
_LONGEST_SUBJECT_WORDS = 10


class SizePoint(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers at one size of the store."""

    edits: int
    stores: int
    """Into how many stores the cases were parted."""
    summary: Summary


def measured_cases(count: int, *, seed: int) -> Benchmark:
    """`count` cases, the same number of each of four sets, to be stored together."""
    drawn = [chosen(load(), edits=count // len(_SETS), seed=seed) for load in _SETS]
    cases = [case for benchmark in drawn for case in benchmark.cases]
    random.Random(seed).shuffle(cases)
    return prepared(Benchmark(name="mixed", role=Role.VALIDATION, cases=tuple(cases)))


def fillers(measured: Benchmark) -> Iterator[EditDraft]:
    """Edits whose subject no probe names: zsRE's and CounterFact's training cases, then T-REx facts."""
    named = _named_in(measured.cases)
    for load in (zsre.load_10k, counterfact.load_10k):
        for case in chosen(load(), edits=None, seed=0).cases:
            if _words(case.edit.subject or "") not in named:
                yield msgspec.structs.replace(case.edit, id=f"filler-{case.id}")
    for number, (prompt, subject, target) in enumerate(_stated_facts()):
        if _words(subject) not in named:
            yield EditDraft(id=f"filler-{number}", prompt=prompt, target_new=target, subject=subject)


async def measure(
    models: GatewayModels,
    *,
    sizes: Sequence[int],
    measured: Benchmark,
    fillers: Callable[[Benchmark], Iterator[EditDraft]],
    on_progress: OnProgress = silent,
) -> list[SizePoint]:
    """The numbers at each size, smallest first. Sizes beyond the fillers there are stay at what there is."""
    count = len(measured.cases)
    points = []
    for size in sorted(size for size in sizes if size < count):
        outcomes: list[CaseOutcome] = []
        groups = [measured.cases[start : start + size] for start in range(0, count, size)]
        for done, group in enumerate(groups):
            async with _decider(models) as decider:
                await decider.store([case.edit for case in group])
                outcomes += await outcomes_of(msgspec.structs.replace(measured, cases=group), decider)
            on_progress(f"{size:,} edits", done + 1, len(groups))
        points.append(SizePoint(edits=size, stores=len(groups), summary=summarise(outcomes)))
    async with _decider(models) as decider:
        await decider.store([case.edit for case in measured.cases])
        stored = count
        more = fillers(measured)
        for size in sorted(size for size in sizes if size >= count):
            batch = [draft for draft, _ in zip(more, range(size - stored), strict=False)]
            await decider.store(batch)
            on_progress("storing edits", stored + len(batch), max(sizes))
            stored += len(batch)
            outcomes = await outcomes_of(measured, decider)
            points.append(SizePoint(edits=stored, stores=1, summary=summarise(outcomes)))
    return points


def write(points: Sequence[SizePoint], folder: Path, *, classifier: str) -> list[tuple[str, ...]]:
    """Write curve.json, curve.md and curve.png; returns the table, its head first."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, ...]] = [("edits", "hit", "no-fire", "harmonic mean", "right edit in top 8")]
    for point in points:
        summary = point.summary
        rows.append(
            (
                f"{point.edits:,}",
                f"{summary.hit.value:.4f}",
                f"{summary.no_fire.value:.4f}",
                f"{summary.harmonic.value:.4f} [{summary.harmonic.low:.4f}, {summary.harmonic.high:.4f}]",
                f"{summary.recall_at_8.value:.4f}",
            )
        )
    (folder / "curve.json").write_bytes(
        msgspec.json.format(msgspec.json.encode({"classifier": classifier, "points": points}), indent=2)
    )
    lines = [f"| {' | '.join(row)} |" for row in rows]
    (folder / "curve.md").write_text("\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    sizes = [point.edits for point in points]
    axes.plot(sizes, [point.summary.hit.value for point in points], marker="o", label="hit")
    axes.plot(sizes, [point.summary.no_fire.value for point in points], marker="o", label="no-fire")
    axes.plot(sizes, [point.summary.harmonic.value for point in points], marker="o", label="harmonic mean")
    axes.set(xscale="log", xlabel="edits in the store", ylabel="rate", title=classifier)
    axes.legend()
    figure.savefig(folder / "curve.png", dpi=110)
    return rows


def _decider(models: GatewayModels) -> InProcessDecider:
    return InProcessDecider(
        encoder=models.encoder, classifier=models.classifier, make_index=models.make_index, threads=2
    )


def _stated_facts() -> Iterator[tuple[str, str, str]]:
    """(prompt, subject, target) of T-REx facts, by every pattern that ends in the answer."""
    patterns: dict[str, list[str]] = defaultdict(list)
    for row in read_rows(data_folder() / _PATTERNS_FILE):
        before, answer, after = row["pattern"].partition("[Y]")
        if answer and "[X]" in before and not after.strip(" ."):
            patterns[row["relation"]].append(before.strip())
    facts = read_rows(data_folder() / counterfact.FACTS_FILE)
    most = max(len(texts) for texts in patterns.values())
    for position in range(most):
        for row in facts:
            if position < len(patterns[row["relation"]]):
                prompt = patterns[row["relation"]][position].replace("[X]", row["sub_label"])
                yield prompt, row["sub_label"], row["obj_label"]


def _named_in(cases: Sequence[Case]) -> frozenset[str]:
    """Every run of words in any probe: a subject is named by a probe iff its words are among them."""
    named: set[str] = set()
    for case in cases:
        for probe in case.probes:
            words = _words(probe.text).split()
            for start in range(len(words)):
                for end in range(start + 1, min(len(words), start + _LONGEST_SUBJECT_WORDS) + 1):
                    named.add(" ".join(words[start:end]))
    return frozenset(named)


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
