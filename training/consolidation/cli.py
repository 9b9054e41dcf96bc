"""`serac-train consolidate`: what it prints."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serac_gateway.cli.options import NamespaceOption, UrlOption, chosen_namespace, chosen_url
from serac_gateway.cli.terminal import EXIT_USAGE, fail, print_json, run
from serac_gateway.domain.consolidation import Absorption, ConsolidationReport, Drift
from serac_gateway.errors import ConfigError
from training.consolidation.recipes import RECIPES, MethodName
from training.progress import progress_display
from training.runs import TrainingError

_PRINTED = 40


def consolidate(
    method: Annotated[MethodName, typer.Option(help="How the weights are changed.")],
    out: Annotated[Path, typer.Option(help="The run's folder; an unfinished run goes on.")],
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the base model, as transformers saves it.", show_default="the embedded model"
        ),
    ] = None,
    edits: Annotated[
        int | None, typer.Option(min=1, help="How many facts at most, by id.", show_default="all")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="The method's settings.",
            show_default="configs/consolidation/<method>.toml, memit: configs/baselines/memit.toml",
        ),
    ] = None,
    probes: Annotated[
        Path | None,
        typer.Option(help="NDJSON of held-back wordings and neighbours: edit_id, held_back, neighbours."),
    ] = None,
    unrelated: Annotated[int, typer.Option(min=1, help="Unrelated prompts asked before and after.")] = 60,
    questions: Annotated[int, typer.Option(min=0, help="Questions of NQ-open asked, if it is there.")] = 100,
    max_perplexity_rise: Annotated[
        float, typer.Option(min=0, help="A model that loses more on unrelated text has no edit absorbed.")
    ] = 0.15,
    save_model: Annotated[
        Path | None, typer.Option(help="Also write the whole changed model there, as transformers loads it.")
    ] = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Change an open base model so that it answers a running gateway's edits by itself, and measure it.

    Only facts in force are taken. The edits stay where they are: see `serac edits retire`.
    """
    from training.baselines.opening import open_model
    from training.consolidation.live_edits import read_live_edits
    from training.consolidation.run import ConsolidationConfig
    from training.consolidation.run import consolidate as run_consolidation
    from training.runs import read_config

    recipe, chosen_name = RECIPES[method], chosen_namespace(namespace)
    try:
        base = open_model(model)
        settings = ConsolidationConfig(
            gateway=chosen_url(url),
            namespace=chosen_name,
            method=method.value,
            settings=read_config(config or recipe.settings, dict),
            model=base.name,
            base_digest=base.fingerprint(),
            edits=edits,
            probes=None if probes is None else str(probes),
            unrelated=unrelated,
            questions=questions,
            max_perplexity_rise=max_perplexity_rise,
        )
        with progress_display("consolidating") as on_progress:
            report = run_consolidation(
                base, recipe, settings, out,
                read_edits=lambda: run(read_live_edits(settings.gateway, chosen_name)),
                settings_file=config, on_progress=on_progress,
            )  # fmt: skip
        if save_model is not None:
            base.network.save_pretrained(save_model)
            base.tokenizer.save_pretrained(save_model)
    except (ConfigError, TrainingError) as exc:
        fail(str(exc), EXIT_USAGE)
    if as_json:
        print_json(report)
    else:
        _print(report, out)


def _print(report: ConsolidationReport, out: Path) -> None:
    console = Console()
    counts = Counter(edit.state for edit in report.edits)
    console.print(f"the changed {escape(report.model)} answers by itself:")
    _print_edits(console, report, [Absorption.ABSORBED])
    console.print("still need the gateway:")
    _print_edits(console, report, [state for state in Absorption if state is not Absorption.ABSORBED])
    for left in report.left_out[:_PRINTED]:
        console.print(f"  {left.id} version {left.version}: {escape(left.why)}", soft_wrap=True)
    if report.refusal:
        console.print(f"[red]no edit counts as absorbed:[/] {escape(report.refusal)}", soft_wrap=True)
    console.print(
        ", ".join(f"{counts[state]:,} {state.value}" for state in Absorption)
        + f", {len(report.left_out):,} not consolidable; {_drift(report.drift)}",
        soft_wrap=True,
    )
    console.print(
        f"wrote {escape(str(out))}; next: serac edits retire --consolidated-in"
        f" {escape(str(out / 'report.json'))}",
        soft_wrap=True,
    )


def _drift(drift: Drift) -> str:
    parts = [f"perplexity of unrelated text {drift.perplexity_before:.1f} → {drift.perplexity_after:.1f}"]
    if drift.unrelated_kept is not None:
        parts.append(f"{drift.unrelated_kept:.0%} of {drift.unrelated} unrelated prompts get the same text")
    if drift.right_before is not None:
        before_after = f"{drift.right_before:.0%} → {drift.right_after:.0%}"
        parts.append(f"{before_after} of {drift.questions} public questions right")
    return ", ".join(parts)


def _print_edits(console: Console, report: ConsolidationReport, states: list[Absorption]) -> None:
    edits = [edit for edit in report.edits if edit.state in states]
    table = Table("edit", "version", "state", "prompt", "answer", "why")
    for edit in edits[:_PRINTED]:
        table.add_row(
            edit.id, str(edit.version), edit.state.value, escape(edit.prompt),
            escape(f"{edit.answer_before} → {edit.answer_after}"), escape(edit.why),
        )  # fmt: skip
    console.print(table)
    if len(edits) > _PRINTED:
        console.print(f"and {len(edits) - _PRINTED:,} more; report.md has all")
