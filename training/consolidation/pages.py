"""The report and the card of a consolidation as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from serac_gateway.domain.consolidation import Absorption, ConsolidatedEdit, ConsolidationReport, Rates

STATES = tuple(Absorption)


def report_page(report: ConsolidationReport, beyond: int) -> str:
    """What became of every edit; `beyond` facts were cut off by the limit."""
    counts = Counter(edit.state for edit in report.edits)
    drift = report.drift
    lines = [
        f"# Consolidation of {report.namespace!r} into {report.model} by {report.method}",
        "",
        f"{report.made_at:%Y-%m-%d %H:%M} UTC, edits of {report.gateway}. {len(report.edits):,} facts: "
        + ", ".join(f"{counts[state]:,} {state.value}" for state in STATES)
        + f"; {len(report.left_out):,} edits cannot be consolidated; {beyond:,} more facts were not taken.",
        "",
        *([f"**No edit counts as absorbed: {report.refusal}.**", ""] if report.refusal else []),
        *_table(
            ("probes", "before", "after"),
            [
                *((name, *_before_after(report.edits, name)) for name in Rates.__struct_fields__),
                (f"public questions right ({drift.questions})", drift.right_before, drift.right_after),
                (f"unrelated prompts unchanged ({drift.unrelated})", None, drift.unrelated_kept),
                ("perplexity of unrelated text", drift.perplexity_before, drift.perplexity_after),
            ],
        ),
        "",
        "Of prompt, trained and held_back: the share that gets the edit's answer, mean over edits; of"
        " neighbours: the share that gets the text of before.",
        "",
        "## Edits",
        "",
        *_table(
            ("edit", "version", "source", "state", "prompt", "held back", "neighbours", "answer", "why"),
            [
                (
                    edit.id, edit.version, edit.source or "", edit.state.value,
                    _arrow(edit.before.prompt, edit.after.prompt),
                    _arrow(edit.before.held_back, edit.after.held_back),
                    _number(edit.after.neighbours),
                    f"{edit.answer_before} → {edit.answer_after}", edit.why,
                )
                for edit in report.edits
            ],
        ),
        "",
        "## Left at the gateway",
        "",
        *_table(
            ("edit", "version", "kind", "why"),
            [(left.id, left.version, left.kind.value, left.why) for left in report.left_out],
        ),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def card_page(report: ConsolidationReport) -> str:
    """What the file of weights holds, for whoever loads it."""
    lines = [
        f"# {report.artefact}",
        "",
        f"Tensors of {report.model}, changed by {report.method} so that it answers edits of a gateway by"
        " itself. Each replaces the base model's tensor of its name. The licence is the base model's.",
        "",
        *_table(
            ("what", "value"),
            [
                ("base model", report.model), ("digest of its parameters", report.base_digest),
                ("SHA-256 of the file", report.artefact_digest), ("method", report.method),
                ("settings", f"`{msgspec.json.encode(report.settings).decode()}`"),
                ("edits from", f"{report.gateway}, namespace {report.namespace}"),
                ("made", report.made_at.isoformat()), ("report", report.digest),
            ],
        ),
        "",
        "Edits it was trained on or measured by, with versions and what became of them:",
        "",
        *_table(
            ("edit", "version", "made", "state"),
            [(edit.id, edit.version, edit.created_at.isoformat(), edit.state.value) for edit in report.edits],
        ),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _before_after(edits: Sequence[ConsolidatedEdit], name: str) -> tuple[float | None, float | None]:
    return _mean(getattr(edit.before, name) for edit in edits), _mean(
        getattr(edit.after, name) for edit in edits
    )


def _mean(shares: Iterable[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None


def _arrow(before: float | None, after: float | None) -> str:
    return "" if after is None else f"{_number(before)} → {_number(after)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(map(_cell, row))} |" for row in rows),
    ]


def _cell(value: object) -> str:
    text = _number(value) if value is None or isinstance(value, float) else str(value)
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
