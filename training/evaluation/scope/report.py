"""A run as Markdown and as one self-contained HTML page with plots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.benchmarks.counterfact_hard import HELD_OUT_RELATIONS
from training.evaluation.outcomes import RunSettings
from training.evaluation.pages import Pages, Section, Table, png, settings_table, write_pages
from training.evaluation.rates import Rate, rate, rate_text, short_rate_text
from training.evaluation.scope.metrics import reliability_bins
from training.evaluation.scope.outcomes import CaseOutcome, ProbeOutcome, RunFolder
from training.evaluation.scope.summary import APART, Summary, best_is_right, curve_of, is_right, summarise

_WORST = 15


def write_report(results: RunFolder) -> Pages[Summary]:
    """Write report.md, report.html and summary.json into the run's folder.

    Raises:
        ConfigError: There is no run there.
    """
    settings = results.settings()
    outcomes = list(results.outcomes())
    summary = summarise(outcomes, seed=settings.seed)
    title = f"{settings.benchmark}: {settings.stored_edits:,} edits"
    sections = _sections(settings, summary, outcomes)
    return write_pages(results.folder, title, sections, _plots(outcomes), summary)


def result_rows(runs: Sequence[tuple[RunSettings, Summary]]) -> list[tuple[str, ...]]:
    """One table of several runs, its head first."""
    rows: list[tuple[str, ...]] = [
        ("benchmark", "edits", "decided by", "edit success", "hit", "no-fire", "harmonic mean", "ECE")
    ]
    for settings, summary in runs:
        harmonic = summary.harmonic
        rows.append(
            (
                settings.benchmark,
                f"{settings.stored_edits:,}",
                settings.decider.get("classifier") or settings.decider["decider"],
                short_rate_text(summary.edit_success),
                short_rate_text(summary.hit),
                short_rate_text(summary.no_fire),
                f"{harmonic.value:.4f} ± {(harmonic.high - harmonic.low) / 2:.4f}",
                f"{summary.calibration_error:.3f}",
            )
        )
    return rows


def _sections(settings: RunSettings, summary: Summary, outcomes: Sequence[CaseOutcome]) -> list[Section]:
    sections = [
        ("Run", settings_table(settings)),
        ("Result (95 % intervals: Wilson, bootstrap over cases)", _result_table(summary)),
        ("By kind of probe", _kinds_table(summary)),
    ]
    held_out = [case for case in outcomes if case.relation in HELD_OUT_RELATIONS]
    if held_out and len(held_out) < len(outcomes):
        sections.append(("Held-out relations only", _result_table(summarise(held_out, seed=settings.seed))))
    sections.append(("Worst false fires", _false_fires(outcomes)))
    sections.append(("Worst misses", _misses(outcomes)))
    return sections


def _result_table(summary: Summary) -> Table:
    harmonic = summary.harmonic
    return [
        ("metric", "value"),
        ("edit success (the prompt itself)", rate_text(summary.edit_success)),
        ("hit (the right edit fires, or one that asks the same)", rate_text(summary.hit)),
        ("hit, the case's own edit", rate_text(summary.hit_own)),
        ("no-fire", rate_text(summary.no_fire)),
        ("no-fire, contested probes too", rate_text(summary.no_fire_with_contested)),
        ("harmonic mean", f"{harmonic.value:.4f} [{harmonic.low:.4f}, {harmonic.high:.4f}]"),
        ("another edit fires instead", rate_text(summary.wrong_edit)),
        ("right edit the most similar", rate_text(summary.recall_at_1)),
        ("right edit among the 8 most similar", rate_text(summary.recall_at_8)),
        ("expected calibration error", f"{summary.calibration_error:.4f}"),
    ]


def _kinds_table(summary: Summary) -> Table:
    rates: dict[str, dict[bool, Rate]] = defaultdict(dict)
    for kind_rate in summary.kinds:
        rates[kind_rate.kind][kind_rate.in_scope] = kind_rate.right
    nothing = rate([])
    rows: list[tuple[str, str, str, str]] = []
    for kind, by_side in rates.items():
        fires, stays = by_side.get(True, nothing), by_side.get(False, nothing)
        both = (fires.count + stays.count) / max(1, fires.total + stays.total)
        rows.append((kind, rate_text(fires), rate_text(stays), f"{both:.4f}"))
    return [("kind", "in scope: right edit fires", "out of scope: none fires", "all right"), *rows]


def _false_fires(outcomes: Sequence[CaseOutcome]) -> Table:
    prompts = {case.case: f"{case.prompt} → {case.target_new}" for case in outcomes}
    listed = [
        probe
        for case in outcomes
        for probe in case.probes
        if not probe.in_scope and not probe.contested and probe.fired
    ]
    listed.sort(key=lambda probe: -(probe.scope_probability or 0))
    return [
        ("probability", "kind", "query", "fired edit"),
        *(
            (
                _number(probe.scope_probability),
                probe.kind,
                probe.text[:160],
                prompts.get(probe.fired or "", ""),
            )
            for probe in listed[:_WORST]
        ),
    ]


def _misses(outcomes: Sequence[CaseOutcome]) -> Table:
    listed = [
        (probe, case)
        for case in outcomes
        for probe in case.probes
        if probe.in_scope and probe.kind != "generation" and not is_right(probe, case)
    ]
    listed.sort(key=lambda pair: pair[0].own_probability or 0)
    return [
        ("own probability", "rank", "kind", "query", "edit"),
        *(
            (
                _number(probe.own_probability),
                str(probe.rank or "–"),
                probe.kind,
                probe.text[:160],
                f"{case.prompt} → {case.target_new}",
            )
            for probe, case in listed[:_WORST]
        ),
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _plots(outcomes: Sequence[CaseOutcome]) -> list[str]:
    judged = [
        (probe, case)
        for case in outcomes
        for probe in case.probes
        if not probe.contested and probe.kind not in APART
    ]
    points = curve_of(outcomes)
    figure = Figure(figsize=(11, 8), layout="constrained")
    (roc, precision), (reliability, histogram) = figure.subplots(2, 2)
    roc.plot([point.false_fire for point in points], [point.hit for point in points])
    roc.set(xlabel="false fire rate", ylabel="hit rate", title="ROC (a hit needs the right edit)")
    roc.set_xscale("symlog", linthresh=1e-3)
    precision.plot([point.hit for point in points], [point.precision for point in points])
    precision.set(xlabel="hit rate", ylabel="precision", title="Precision–recall")
    bins = reliability_bins(
        [probe.scope_probability or 0.0 for probe, _ in judged],
        [best_is_right(probe, case) for probe, case in judged],
    )
    reliability.plot([0, 1], [0, 1], linestyle=":", color="grey")
    means, shares = [part.mean_probability for part in bins], [part.share_right for part in bins]
    reliability.plot(means, shares, marker="o")
    reliability.set(xlabel="scope_probability", ylabel="share right", title="Reliability")
    _draw_histogram(histogram, [probe for probe, _ in judged])
    return [png(figure)]


def _draw_histogram(axes: Axes, probes: Sequence[ProbeOutcome]) -> None:
    by_kind: dict[str, list[float]] = defaultdict(list)
    for probe in probes:
        side = "in" if probe.in_scope else "out"
        by_kind[f"{probe.kind} ({side})"].append(probe.scope_probability or 0.0)
    largest = sorted(by_kind.items(), key=lambda pair: -len(pair[1]))[:8]
    for kind, probabilities in largest:
        axes.hist(probabilities, bins=40, range=(0, 1), histtype="step", density=True, label=kind)
    axes.set(xlabel="scope_probability of the best candidate", title="By kind of probe")
    axes.set_yscale("log")
    if largest:
        axes.legend(fontsize=7)
