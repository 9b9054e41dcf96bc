"""`serac-train evaluate answers`: parsing and printing only."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console

from serac_gateway.cli.terminal import print_json
from serac_gateway.cli.terminal import run as run_command
from training.benchmarks.base import Benchmark
from training.evaluation.answers.methods.cli import method_answers
from training.evaluation.answers.run import AnswerOptions, run_answers
from training.evaluation.options import (
    RUNS,
    AskOption,
    BenchmarkOption,
    EditsOption,
    JsonOption,
    OutOption,
    PathOption,
)
from training.evaluation.terminal import OnProgress, config_errors, print_table, progress_bars

if TYPE_CHECKING:
    from training.evaluation.answers.outcomes import AnswerFolder
    from training.evaluation.answers.teacher_forcing import TeacherForcing


class ClozesAs(StrEnum):
    """How texts to be continued are asked."""

    CHAT = "chat"
    COMPLETION = "completion"


def answers(
    benchmark: BenchmarkOption,
    path: PathOption = None,
    edits: EditsOption = None,
    ask: AskOption = None,
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
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of a reply.", show_default="48; 16 with --method")
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Cases asked side by side, 1 for honest times; with --method texts.",
            show_default="1; 16 with --method",
        ),
    ] = None,
    forced: Annotated[bool, typer.Option(help="Teacher-forced accuracy too, in process only.")] = True,
    method: Annotated[
        str | None,
        typer.Option(
            help="Instead of a gateway's answers, those of an editing method on one model, or of several with"
            " commas; a wrong name lists them. All are measured alike: see serac-train report. --out gets a"
            " folder of each."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="With --method: a folder of any transformers causal LM; default: embedded Gemma."),
    ] = None,
    method_config: Annotated[
        Path | None,
        typer.Option(help="With --method: its settings; default: configs/baselines/<method>.toml."),
    ] = None,
    together: Annotated[
        int, typer.Option(min=1, help="With --method: edits made in one call, for methods with batches.")
    ] = 1,
    per_kind: Annotated[int, typer.Option(min=1, help="With --method: probes of a kind and case.")] = 2,
    open_texts: Annotated[
        int, typer.Option(min=0, help="With --method: cases with a text to be continued, for fluency.")
    ] = 5,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """What users are answered, by real requests to a gateway: right, unchanged, quick; and a report.

    With --method: what any editing method makes of one model, edited --edits times, asked --ask cases.
    """
    from training.benchmarks.catalogue import open_benchmark
    from training.evaluation.answers.report import answer_rows, write_answer_report

    if url is not None and (config is not None or threshold is not None):
        raise typer.BadParameter("--config and --threshold are of a gateway started here, not of --url")
    if method is not None:
        if url is not None or config is not None or threshold is not None or given_edit:
            raise typer.BadParameter(
                "--url, --config, --threshold and --given-edit are of a gateway's answers"
            )
        method_answers(
            method, benchmark, path, edits=edits or 1, ask=ask or 20, seed=seed, together=together,
            per_kind=per_kind, open_texts=open_texts,
            max_tokens=max_tokens or 16, at_once=at_once or 16, model=model, method_config=method_config,
            out=out, json=json,
        )  # fmt: skip
        return
    if model is not None or method_config is not None or together != 1:
        raise typer.BadParameter("--model, --method-config and --together go with --method")
    options = AnswerOptions(
        given_edit=given_edit,
        as_completion=clozes_as is ClozesAs.COMPLETION,
        max_tokens=max_tokens or 48,
        at_once=at_once or 1,
    )
    with config_errors(), progress_bars() as on_progress:
        chosen = _Chosen(
            benchmark=open_benchmark(benchmark, path),
            path=path,
            edits=edits,
            ask=ask,
            seed=seed,
            options=options,
        )
        folder = out or RUNS / chosen.folder_name(over_http=url is not None)
        if url is not None:
            measuring = _measured(chosen, url, folder, on_progress)
        else:
            measuring = _measured_here(chosen, config, threshold, forced, folder, on_progress)
        results = run_command(measuring)
        written = write_answer_report(results)
    if json:
        print_json(written.summary)
        return
    print_table(answer_rows([(results.settings(), written.summary)]))
    Console().print(f"report: {written.markdown} and {written.html}", soft_wrap=True)


class _Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure."""

    benchmark: Benchmark
    path: Path | None
    edits: int | None
    ask: int | None
    seed: int
    options: AnswerOptions

    def folder_name(self, *, over_http: bool) -> str:
        parts = (
            "answers",
            self.benchmark.name,
            str(self.edits or "all"),
            f"ask{self.ask}" if self.ask else "",
            f"seed{self.seed}",
            "given-edit" if self.options.given_edit else "",
            "completion" if self.options.as_completion else "",
            "http" if over_http else "",
        )
        return "-".join(part for part in parts if part)


async def _measured(
    chosen: _Chosen,
    url: str,
    folder: Path,
    on_progress: OnProgress,
    *,
    about: Mapping[str, str] | None = None,
    forcing: TeacherForcing | None = None,
) -> AnswerFolder:
    return await run_answers(
        chosen.benchmark,
        url,
        folder,
        options=chosen.options,
        about=about or {"gateway": url},
        edits=chosen.edits,
        ask=chosen.ask,
        seed=chosen.seed,
        path=chosen.path,
        forcing=forcing,
        on_progress=on_progress,
    )


async def _measured_here(
    chosen: _Chosen,
    config: Path | None,
    threshold: float | None,
    forced: bool,
    folder: Path,
    on_progress: OnProgress,
) -> AnswerFolder:
    from training.evaluation.answers.teacher_forcing import open_teacher_forcing
    from training.evaluation.local_gateway import gateway_in_process, started_with

    started = started_with(config, threshold=threshold)
    about = {
        "gateway": "in process",
        "config": str(config or "embedded defaults"),
        "scope_threshold": "calibrated" if threshold is None else str(threshold),
    }
    async with gateway_in_process(started) as url:
        forcing = open_teacher_forcing(started) if forced else None
        return await _measured(chosen, url, folder, on_progress, about=about, forcing=forcing)
