"""`serac-train evaluate answers`: parsing and printing only."""

from __future__ import annotations

from contextlib import AsyncExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from serac_gateway.cli.console import print_json
from serac_gateway.cli.console import run as run_command
from training.evaluation.terminal import config_errors, print_table, progress_bars

RUNS = Path("runs/evaluation")


class ClozesAs(StrEnum):
    """How texts to be continued are asked."""

    CHAT = "chat"
    COMPLETION = "completion"


def answers(
    benchmark: Annotated[str, typer.Option(help="zsre, counterfact, …; a wrong name lists them.")],
    path: Annotated[Path | None, typer.Option(help="The published file; default: the shared data.")] = None,
    edits: Annotated[int | None, typer.Option(min=1, help="Store only so many edits; default: all.")] = None,
    ask: Annotated[
        int | None, typer.Option(min=1, help="Ask the probes of so many cases only; default: of all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws edits and cases.")] = 0,
    url: Annotated[
        str | None, typer.Option(help="A running gateway; default: one started in this process.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The configuration of the gateway started here.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Its scope threshold; default: the calibrated one.")
    ] = None,
    given_edit: Annotated[
        bool, typer.Option(help="Store a case's own edits only, and ask only what they answer.")
    ] = False,
    clozes_as: Annotated[
        ClozesAs, typer.Option(help="Texts to be continued go to /v1/chat/completions or /v1/completions.")
    ] = ClozesAs.CHAT,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of a reply.")] = 48,
    at_once: Annotated[int, typer.Option(min=1, help="Cases asked side by side; 1 for honest times.")] = 1,
    forced: Annotated[bool, typer.Option(help="Teacher-forced accuracy too, in process only.")] = True,
    out: Annotated[Path | None, typer.Option(help="The run's folder; an unfinished run goes on.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """What users are answered, by real requests to a gateway: right, unchanged, quick; and a report."""
    from training.benchmarks.catalogue import open_benchmark
    from training.evaluation.answer_outcomes import AnswerFolder
    from training.evaluation.answer_report import answer_rows, write_answer_report
    from training.evaluation.answering import AnswerOptions, run_answers

    if url is not None and (config is not None or threshold is not None):
        raise typer.BadParameter("--config and --threshold are of a gateway started here, not of --url")
    with config_errors(), progress_bars() as on_progress:
        opened = open_benchmark(benchmark, path)
        folder = out or RUNS / _name(benchmark, edits, ask, seed, url, given_edit, clozes_as)

        async def measured() -> AnswerFolder:
            async with AsyncExitStack() as stack:
                about, forcing = {"gateway": url or ""}, None
                if url is None:
                    from training.evaluation.gateway_in_process import gateway_in_process, started_with
                    from training.evaluation.teacher_forcing import open_teacher_forcing

                    started = started_with(config, threshold=threshold)
                    address = await stack.enter_async_context(gateway_in_process(started))
                    forcing = open_teacher_forcing(started) if forced else None
                    about = {
                        "gateway": "in process",
                        "config": str(config or "embedded defaults"),
                        "scope_threshold": "calibrated" if threshold is None else str(threshold),
                    }
                return await run_answers(
                    opened,
                    url or address,
                    folder,
                    options=AnswerOptions(
                        given_edit=given_edit,
                        as_completion=clozes_as is ClozesAs.COMPLETION,
                        max_tokens=max_tokens,
                        at_once=at_once,
                    ),
                    about=about,
                    edits=edits,
                    ask=ask,
                    seed=seed,
                    path=path,
                    forcing=forcing,
                    on_progress=on_progress,
                )

        results = run_command(measured())
        written = write_answer_report(results)
    if json:
        print_json(written.summary)
        return
    print_table(answer_rows([(results.settings(), written.summary)]))
    Console().print(f"report: {written.markdown} and {written.html}", soft_wrap=True)


def _name(
    benchmark: str,
    edits: int | None,
    ask: int | None,
    seed: int,
    url: str | None,
    given_edit: bool,
    clozes_as: ClozesAs,
) -> str:
    parts = (
        "answers",
        benchmark,
        str(edits or "all"),
        f"ask{ask}" if ask else "",
        f"seed{seed}",
        "given-edit" if given_edit else "",
        "completion" if clozes_as is ClozesAs.COMPLETION else "",
        "http" if url else "",
    )
    return "-".join(part for part in parts if part)
