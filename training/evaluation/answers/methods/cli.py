"""`serac-train evaluate answers --method` and `serac-train report`: parsing and printing only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from serac_gateway.cli.terminal import print_json
from training.evaluation.options import RUNS, JsonOption
from training.evaluation.terminal import config_errors, print_table
from training.progress import progress_display


def method_answers(
    method: str,
    benchmark: str,
    path: Path | None,
    *,
    edits: int,
    ask: int,
    seed: int,
    together: int,
    per_kind: int,
    open_texts: int,
    max_tokens: int,
    at_once: int,
    model: Path | None,
    method_config: Path | None,
    out: Path | None,
    json: bool,
) -> None:
    """Measure a method, write its page and print its numbers."""
    from training.benchmarks.catalogue import open_benchmark
    from training.evaluation.answers.methods.catalogue import method_opener

    with config_errors():
        opener = method_opener(method)
        opened = open_benchmark(benchmark, path)
        # Imported here: torch takes seconds, and a wrong name need not wait for it.
        from training.baselines.opening import EMBEDDED_NAME, open_model
        from training.evaluation.answers.methods.report import cost_rows, quality_rows, write_comparison
        from training.evaluation.answers.methods.run import MethodOptions, run_method

        options = MethodOptions(
            edits=edits, ask=ask, together=together, seed=seed, max_tokens=max_tokens, at_once=at_once,
            per_kind=per_kind, open_texts=open_texts,
        )  # fmt: skip
        name = ["method", method, benchmark, str(edits), f"ask{ask}", f"seed{seed}"]
        if together > 1:
            name.append(f"together{together}")
        folder = out or RUNS / "-".join(name)
        with progress_display(method) as on_progress:
            run_method(
                method,
                opened,
                folder,
                options=options,
                open_model=lambda: open_model(model),
                open_method=lambda edited: opener(edited, method_config),
                about={
                    "model": EMBEDDED_NAME if model is None else str(model),
                    "method config": "default" if method_config is None else str(method_config),
                },
                path=path,
                on_progress=on_progress,
            )
        written = write_comparison([folder], folder)
    if json:
        print_json(written.summary)
        return
    print_table(quality_rows(written.summary.rows))
    print_table(cost_rows(written.summary.rows))
    Console().print(f"report: {written.markdown} and {written.html}", soft_wrap=True)


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of serac-train evaluate answers --method.")],
    out: Annotated[Path, typer.Option(help="The folder that gets report.md and report.html.")] = RUNS
    / "methods",
    json: JsonOption = False,
) -> None:
    """Compare editing methods: tables and plots of several runs on one page, Markdown and HTML."""
    with config_errors():
        from training.evaluation.answers.methods.report import quality_rows, write_comparison

        written = write_comparison(runs, out)
    if json:
        print_json(written.summary)
        return
    print_table(quality_rows(written.summary.rows))
    Console().print(f"report: {written.markdown} and {written.html}", soft_wrap=True)
