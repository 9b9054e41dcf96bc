"""Runs of several methods as one page: what they reach, what they break, what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from serac_gateway.errors import ConfigError
from training.evaluation.answers.methods import plots
from training.evaluation.answers.methods.outcomes import CaseOutcome, Group, MethodFolder
from training.evaluation.answers.methods.summary import (
    KindMeasured,
    Measured,
    MethodSummary,
    is_right,
    is_unchanged,
    summarise,
)
from training.evaluation.pages import Pages, Section, Table, write_pages

_LISTED = 4
"""Failures of each kind and run."""

ABOUT = (
    "Every method edits the same model, and the same scorer asks it the same texts. Right means: freely"
    " generated text, cut at a length that does not depend on the wanted answer, contains the answer. Exact:"
    " its first sentence is nothing else. Teacher-forced shares, which papers report, stand beside them and"
    " are easier: the right beginning of the answer is given away.",
    "Locality is the share of neighbouring and unrelated texts whose reply is, letter by letter, what the"
    " unedited model said before the first edit. A model that was damaged loses it. The product of"
    " reliability, generalization and locality is high only for a method that does all three.",
    "Brackets are 95 % bootstrap intervals over edits. Between methods whose intervals overlap a difference"
    " of values means little. “unedited” ignores the edits, “in-context” is given the right edit with"
    " each question: the lower and upper row.",
)


class MethodRow(msgspec.Struct, frozen=True, kw_only=True):
    """A run in numbers."""

    method: str
    benchmark: str
    edits: int
    batch: str
    summary: MethodSummary


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All runs of a page."""

    protocols: dict[str, dict[str, str]]
    """By benchmark, what all its runs have in common."""
    rows: tuple[MethodRow, ...]


def compare(folders: Sequence[Path]) -> Comparison:
    """The numbers of the runs, in the order given but by benchmark and number of edits.

    Raises:
        ConfigError: A folder holds no run of a method, or two runs on a benchmark cannot be compared.
    """
    protocols: dict[str, tuple[Path, dict[str, str]]] = {}
    rows = []
    for folder in folders:
        results = MethodFolder(folder)
        settings = results.settings()
        if settings.measures != "methods":
            raise ConfigError(
                f"{str(folder)!r} is a run of {settings.measures}, not of an editing method; see"
                " serac-train evaluate report"
            )
        protocol = dict(results.protocol())
        first, expected = protocols.setdefault(settings.benchmark, (folder, protocol))
        for name in sorted({*protocol, *expected}):
            if protocol.get(name) != expected.get(name):
                raise ConfigError(
                    f"{str(folder)!r} and {str(first)!r} were measured differently and stand in no table"
                    f" together: {name} is {protocol.get(name)!r} and {expected.get(name)!r}; measure one of"
                    " them again"
                )
        rows.append(
            MethodRow(
                method=settings.decider["method"],
                benchmark=settings.benchmark,
                edits=settings.stored_edits,
                batch=settings.decider["edits at once"],
                summary=summarise(list(results.outcomes()), results.rounds(), seed=settings.seed),
            )
        )
    rows.sort(key=lambda row: (row.benchmark, row.edits))
    return Comparison(protocols={name: shared for name, (_, shared) in protocols.items()}, rows=tuple(rows))


def write_comparison(folders: Sequence[Path], out: Path) -> Pages[Comparison]:
    """Write report.md, report.html and summary.json into `out`. Raises as `compare` does."""
    comparison = compare(folders)
    rows = comparison.rows
    sections: list[Section] = [
        ("What was compared", _protocol_table(comparison)),
        ("Quality", quality_rows(rows)),
        *_kinds_section("Locality by kind of text", rows, lambda summary: summary.locality_kinds),
        *_kinds_section("Robustness: the prompt disturbed", rows, lambda summary: summary.robustness_kinds),
        *_kinds_section("Portability: what follows", rows, lambda summary: summary.portability_kinds),
        ("Stability, consistency, fluency", _stability_table(rows)),
        ("Costs", cost_rows(rows)),
        ("Failures, some of every run", _failures_table(folders)),
    ]
    figures = [figure for name in comparison.protocols for figure in _figures(comparison, name)]
    out.mkdir(parents=True, exist_ok=True)
    return write_pages(
        out,
        "Editing methods side by side",
        sections,
        [image for _, image in figures],
        comparison,
        about=ABOUT,
        captions=[caption for caption, _ in figures],
    )


def _figures(comparison: Comparison, benchmark: str) -> list[tuple[str, str]]:
    lines = [
        plots.MethodPoint(
            method=row.method,
            edits=row.edits,
            seconds_an_edit=row.summary.costs.seconds_an_edit,
            product=row.summary.product.value,
            axes={
                "reliability": row.summary.reliability.contained.value,
                "generalization": row.summary.generalization.contained.value,
                "locality": row.summary.locality.value,
                "portability": row.summary.portability.contained.value,
                "robustness": row.summary.robustness.contained.value,
                "consistency": row.summary.consistency.value,
            },
        )
        for row in comparison.rows
        if row.benchmark == benchmark
    ]
    return [
        (
            f"{benchmark}: what is left when edits add up: answers right, other texts unchanged, both.",
            plots.stability(benchmark, lines),
        ),
        (
            f"{benchmark}: quality against the time an edit takes, at the largest number of edits measured."
            " Good methods stand at the top left.",
            plots.quality_and_cost(benchmark, lines),
        ),
        (
            f"{benchmark}: strengths at the largest number of edits measured; the circle is perfect.",
            plots.radar(benchmark, lines),
        ),
    ]


def quality_rows(rows: Sequence[MethodRow]) -> list[tuple[str, ...]]:
    """The main table, its head first."""
    head = ("benchmark", "edits", "method", "cases", "product", "reliability", "exact", "forced",
            "generalization", "exact", "forced", "locality", "KL (nats)", "portability", "robustness"
            )  # fmt: skip
    return [
        head,
        *(
            (
                row.benchmark,
                f"{row.edits:,}",
                row.method + ("" if row.batch == "1" else f", {row.batch} at once"),
                str(row.summary.cases),
                interval_text(row.summary.product),
                interval_text(row.summary.reliability.contained),
                value_text(row.summary.reliability.exact),
                value_text(row.summary.reliability.forced_tokens),
                interval_text(row.summary.generalization.contained),
                value_text(row.summary.generalization.exact),
                value_text(row.summary.generalization.forced_tokens),
                interval_text(row.summary.locality),
                value_text(row.summary.kl_nats),
                interval_text(row.summary.portability.contained),
                value_text(row.summary.robustness.contained),
            )
            for row in rows
        ),
    ]


def cost_rows(rows: Sequence[MethodRow]) -> list[tuple[str, ...]]:
    """What methods cost, their head first."""
    head = ("benchmark", "edits", "method", "edits made", "refused", "precomputation s", "s an edit",
            "peak memory MB", "added ms to first token", "bytes an edit")  # fmt: skip
    return [
        head,
        *(
            (
                row.benchmark,
                f"{row.edits:,}",
                row.method,
                f"{row.summary.costs.edits:,}",
                str(row.summary.costs.refused),
                _number(row.summary.costs.prepare_s, 1),
                _number(row.summary.costs.seconds_an_edit, 3),
                _number(row.summary.costs.peak_mb, 0),
                _number(row.summary.costs.added_ms_a_query, 0),
                _number(row.summary.costs.bytes_an_edit, 0),
            )
            for row in rows
        ),
    ]


def _protocol_table(comparison: Comparison) -> Table:
    names = list(dict.fromkeys(name for shared in comparison.protocols.values() for name in shared))
    return [
        ("benchmark", *names),
        *(
            (benchmark, *(shared.get(name, "") for name in names))
            for benchmark, shared in comparison.protocols.items()
        ),
    ]


def _kinds_section(
    title: str, rows: Sequence[MethodRow], kinds_of: Callable[[MethodSummary], Sequence[KindMeasured]]
) -> list[Section]:
    """A table with a column a kind; none where no kind was measured."""
    names = sorted({kind.kind for row in rows for kind in kinds_of(row.summary)})
    table = [("benchmark", "edits", "method", *names)]
    for row in rows:
        texts = {kind.kind: count_text(kind.measured) for kind in kinds_of(row.summary)}
        table.append((row.benchmark, f"{row.edits:,}", row.method, *(texts.get(name, "–") for name in names)))
    return [(title, table)] if names else []


def _stability_table(rows: Sequence[MethodRow]) -> Table:
    head = ("benchmark", "edits", "method", "right just after the edit", "the same at the end",
            "new likelier than former (chance .5)", "unedited answers kept right", "consistency",
            "fluency bits", "unedited", "repetition")  # fmt: skip
    return [
        head,
        *(
            (
                row.benchmark,
                f"{row.edits:,}",
                row.method,
                count_text(row.summary.just_after),
                count_text(row.summary.at_the_end),
                count_text(row.summary.reliability.success),
                count_text(row.summary.kept_right),
                count_text(row.summary.consistency),
                value_text(row.summary.fluency_bits),
                value_text(row.summary.base_fluency_bits),
                value_text(row.summary.repetition),
            )
            for row in rows
        ),
    ]


def _failures_table(folders: Sequence[Path]) -> Table:
    table = [("run", "kind", "text", "edit", "wanted", "reply")]
    for folder in folders:
        cases = list(MethodFolder(folder).outcomes())
        for refused in [reason for line in MethodFolder(folder).rounds() for reason in line.refused][
            :_LISTED
        ]:
            table.append((folder.name, "refused", refused, "", "", ""))
        for group in (Group.RELIABILITY, Group.GENERALIZATION, Group.LOCALITY):
            table += [(folder.name, *row) for row in _failed(cases, group)[:_LISTED]]
    return table


def _failed(cases: Sequence[CaseOutcome], group: Group) -> list[tuple[str, str, str, str, str]]:
    judged = is_unchanged if group is Group.LOCALITY else is_right
    return [
        (
            probe.kind,
            probe.text[:160],
            f"{case.prompt} → {case.target_new}",
            probe.base_reply[:120] if group is Group.LOCALITY else " | ".join(probe.answers[:3]),
            probe.reply[:160],
        )
        for case in cases
        for probe in case.probes
        if probe.group is group and not probe.is_ambiguous and judged(probe) == 0.0
    ]


def interval_text(value: Measured) -> str:
    """Value and interval."""
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]" if value.probes else "–"


def value_text(value: Measured) -> str:
    """The value alone."""
    return f"{value.value:.2f}" if value.probes else "–"


def count_text(value: Measured) -> str:
    """Value and number of probes."""
    return f"{value.value:.2f} ({value.probes})" if value.probes else "–"


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"
