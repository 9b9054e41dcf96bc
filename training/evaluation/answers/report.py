"""A run of the answer metrics as pages: numbers, what went wrong, and answers to be read by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from matplotlib.figure import Figure

from serac_gateway.domain.edits import EditKind
from serac_gateway.routing.router import Route
from training.benchmarks.counterfact_hard import HELD_OUT_RELATIONS
from training.evaluation.answers.metrics import new_words
from training.evaluation.answers.outcomes import AnswerFolder, CaseAnswers, ProbeAnswer
from training.evaluation.answers.summary import AnswerSummary, Pair, is_leak, is_right, summarise
from training.evaluation.answers.timing import ANSWERED_HERE
from training.evaluation.outcomes import RunSettings
from training.evaluation.pages import Pages, Section, Table, png, settings_table, write_pages
from training.evaluation.rates import Interval, rate_text, short_rate_text

ANSWERS_TO_READ = 200
_LISTED = 30


def write_answer_report(results: AnswerFolder) -> Pages[AnswerSummary]:
    """Write report.md, report.html and summary.json into the run's folder.

    Raises:
        ConfigError: There is no run there.
    """
    settings = results.settings()
    cases = list(results.outcomes())
    summary = summarise(cases, seed=settings.seed)
    title = f"{settings.benchmark}: answers with {settings.stored_edits:,} edits in the store"
    sections = _sections(settings, summary, cases)
    return write_pages(results.folder, title, sections, [_plot(cases)], summary)


def answer_rows(runs: Sequence[tuple[RunSettings, AnswerSummary]]) -> list[tuple[str, ...]]:
    """One table of several runs, its head first."""
    head = ("benchmark", "edits", "gateway", "reliability", "generalization", "yes/no", "locality",
            "portability", "leaked", "first token ms", "total ms")  # fmt: skip
    return [
        head,
        *(
            (
                settings.benchmark,
                f"{settings.stored_edits:,}",
                settings.decider["gateway"],
                *(
                    short_rate_text(share)
                    for share in (
                        summary.reliability,
                        summary.generalization,
                        summary.verdicts,
                        summary.locality,
                        summary.portability_any,
                        summary.leaked,
                    )
                ),
                *_answer_times(summary),
            )
            for settings, summary in runs
        ),
    ]


def _answer_times(summary: AnswerSummary) -> tuple[str, str]:
    for times in summary.times:
        if times.replies == Route.COUNTERFACTUAL:
            return _number(times.first_token_median_ms), _number(times.total_median_ms)
    return "–", "–"


def _sections(settings: RunSettings, summary: AnswerSummary, cases: Sequence[CaseAnswers]) -> list[Section]:
    pairs = [(probe, case) for case in cases for probe in case.probes]
    sections: list[Section] = [
        ("Run", settings_table(settings)),
        ("Result (95 % intervals: Wilson, bootstrap over cases)", _result_table(summary)),
        ("By kind of probe", _kinds_table(summary)),
        ("Routes", _routes_table(summary)),
        ("Times", _times_table(summary)),
    ]
    if summary.portability:
        sections.insert(3, ("Portability", _portability_table(summary)))
    held_out = [case for case in cases if case.relation in HELD_OUT_RELATIONS]
    if held_out and len(held_out) < len(cases):
        of_held_out = summarise(held_out, seed=settings.seed)
        sections.append(("Held-out relations only", _result_table(of_held_out)))
    wrong = [pair for pair in pairs if pair[0].in_scope and pair[0].kind != "generation"]
    wrong = [pair for pair in wrong if not is_right(pair[0])]
    changed = [pair for pair in pairs if not is_right(pair[0]) and not pair[0].in_scope]
    leaked = [pair for pair in pairs if pair[1].edit_kind is EditKind.SUPPRESSION and is_leak(*pair)]
    sections.append((f"Wrong answers, {min(_LISTED, len(wrong))} of {len(wrong)}", _replies(wrong[:_LISTED])))
    sections.append(
        (f"Replies that changed, {min(_LISTED, len(changed))} of {len(changed)}", _replies(changed[:_LISTED]))
    )
    if summary.leaked.total:
        sections.append((f"Leaks, all {len(leaked)}", _replies(leaked)))
    sections.append(("Answers to read by hand", _to_read(pairs, seed=settings.seed)))
    return sections


def _result_table(summary: AnswerSummary) -> Table:
    return [
        ("metric", "value"),
        ("reliability (the prompt itself)", rate_text(summary.reliability)),
        ("generalization (paraphrases)", rate_text(summary.generalization)),
        ("reliability, the case's own answer", rate_text(summary.reliability_own)),
        ("generalization, the case's own answer", rate_text(summary.generalization_own)),
        ("right where an edit answered", rate_text(summary.right_when_answered_here)),
        ("yes/no and claims", rate_text(summary.verdicts)),
        ("locality (byte-identical to the base model's own)", rate_text(summary.locality)),
        ("locality, contested probes too", rate_text(summary.locality_with_contested)),
        ("true answer in these replies", rate_text(summary.true_answer)),
        ("true answer in the base model's own", rate_text(summary.true_answer_base)),
        ("portability, a case with one right probe", rate_text(summary.portability_any)),
        ("portability, such cases uncontested", rate_text(summary.portability_any_uncontested)),
        ("target_true leaked (suppressions)", rate_text(summary.leaked)),
        ("target_true leaked where the suppression answered", rate_text(summary.leaked_when_answered_here)),
        ("old answer said (facts)", rate_text(summary.old_answer)),
        ("teacher-forced reliability", _interval(summary.forced_reliability)),
        ("teacher-forced generalization", _interval(summary.forced_generalization)),
        ("teacher-forced portability", _interval(summary.forced_portability)),
        ("fluency, n-gram entropy of answers here", _interval(summary.fluency)),
        ("fluency of the base model's replies", _interval(summary.fluency_base)),
        ("words in an answer, median", _number(summary.answer_words_median)),
        ("words in an answer, 95th percentile", _number(summary.answer_words_p95)),
    ]


def _kinds_table(summary: AnswerSummary) -> Table:
    return [
        ("kind", "must fire", "right"),
        *((kind.kind, "yes" if kind.in_scope else "no", rate_text(kind.right)) for kind in summary.kinds),
    ]


def _portability_table(summary: AnswerSummary) -> Table:
    return [
        ("kind", "right", "right, uncontested"),
        *((kind.kind, rate_text(kind.right), rate_text(kind.uncontested)) for kind in summary.portability),
    ]


def _routes_table(summary: AnswerSummary) -> Table:
    return [
        ("probes", "route", "share"),
        *((route.group, route.route, rate_text(route.share)) for route in summary.routes),
    ]


def _times_table(summary: AnswerSummary) -> Table:
    return [
        ("replies", "count", "first token ms, median", "95th percentile", "total ms, median",
         "95th percentile", "tokens, median"),
        *(
            (
                times.replies,
                f"{times.count:,}",
                _number(times.first_token_median_ms),
                _number(times.first_token_p95_ms),
                _number(times.total_median_ms),
                _number(times.total_p95_ms),
                _number(times.tokens_median),
            )
            for times in summary.times
        ),
    ]  # fmt: skip


def _replies(pairs: Sequence[Pair]) -> Table:
    return [
        ("kind", "route", "query", "edit", "wanted", "reply"),
        *(
            (
                probe.kind,
                probe.route,
                probe.text[:160],
                f"{case.prompt} → {case.target_new}",
                _wanted(probe),
                probe.reply[:200],
            )
            for probe, case in pairs
        ),
    ]


def _to_read(pairs: Sequence[Pair], *, seed: int) -> Table:
    """Answers made here, drawn at random, with the words that neither query nor edit holds."""
    here = [pair for pair in pairs if pair[0].route in ANSWERED_HERE]
    drawn = random.Random(seed).sample(here, min(ANSWERS_TO_READ, len(here)))
    return [
        ("query", "edit", "reply", "new words"),
        *(
            (
                probe.text,
                f"{case.prompt} → {case.target_new}",
                probe.reply,
                ", ".join(new_words(probe.reply, (probe.text, case.prompt or "", case.target_new or ""))),
            )
            for probe, case in drawn
        ),
    ]


def _wanted(probe: ProbeAnswer) -> str:
    if not probe.in_scope:
        return (probe.base_reply or "")[:200]
    if probe.verdict is not None:
        return "yes" if probe.verdict else "no"
    return " | ".join((*probe.answers, *probe.rival_answers)[:4])


def _plot(cases: Sequence[CaseAnswers]) -> str:
    """Shares of replies that came within a time, by route: PNG in base64."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    routes = sorted({probe.route for case in cases for probe in case.probes})
    for route in routes:
        times = sorted(probe.total_ms for case in cases for probe in case.probes if probe.route == route)
        axes.step(times, [(rank + 1) / len(times) for rank in range(len(times))], where="post", label=route)
    axes.set(xlabel="ms until the whole reply", ylabel="share of replies", title="Times by route")
    if routes:
        axes.set_xscale("log")
        axes.legend()
    return png(figure)


def _interval(interval: Interval) -> str:
    if math.isnan(interval.value):
        return "–"
    return f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f}"
