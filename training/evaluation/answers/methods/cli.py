"""`serac-train evaluate answers --method` and `serac-train report`: parsing and printing only."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from serac_gateway.cli.terminal import print_json
from training.evaluation.options import RUNS, JsonOption
from training.evaluation.terminal import config_errors, print_table
from training.progress import progress_display

if TYPE_CHECKING:  # torch takes seconds
    from training.baselines.base import EditingMethod
    from training.baselines.causal_model import CausalModel
    from training.evaluation.answers.methods.catalogue import OpensMethod


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
    """Measure methods on one model, write their pages and print their numbers."""
    from training.benchmarks.catalogue import open_benchmark
    from training.evaluation.answers.methods.catalogue import method_opener

    names = method.split(",")
    with config_errors():
        openers = {name: method_opener(name.strip()) for name in names}
        if len(names) > 1 and method_config is not None:
            raise typer.BadParameter("--method-config is of a single method")
        opened = open_benchmark(benchmark, path)
        # Imported here: torch takes seconds, and a wrong name need not wait for it.
        from training.baselines.opening import EMBEDDED_NAME, open_model
        from training.evaluation.answers.methods.report import (
            compare,
            cost_rows,
            quality_rows,
            write_comparison,
        )
        from training.evaluation.answers.methods.run import MethodOptions, run_method

        options = MethodOptions(
            edits=edits, ask=ask, together=together, seed=seed, max_tokens=max_tokens, at_once=at_once,
            per_kind=per_kind, open_texts=open_texts,
        )  # fmt: skip
        opened_model = cache(lambda: open_model(model))
        folders = []
        for name, opener in openers.items():
            own = "-".join(
                ["method", name, benchmark, str(edits), f"ask{ask}", f"seed{seed}"]
                + ([f"together{together}"] if together > 1 else [])
            )
            folders.append((out or RUNS) / own)
            with progress_display(name) as on_progress:
                run_method(
                    name,
                    opened,
                    folders[-1],
                    options=options,
                    open_model=opened_model,
                    open_method=partial(_opened, opener, method_config),
                    about={
                        "model": EMBEDDED_NAME if model is None else str(model),
                        "method config": "default" if method_config is None else str(method_config),
                    },
                    path=path,
                    on_progress=on_progress,
                )
            write_comparison(folders[-1:], folders[-1])
        compared = compare(folders)
    if json:
        print_json(compared)
        return
    print_table(quality_rows(compared.rows))
    print_table(cost_rows(compared.rows))
    Console().print(
        f"reports: {', '.join(str(folder / 'report.html') for folder in folders)}", soft_wrap=True
    )


def _opened(opener: OpensMethod, config: Path | None, model: CausalModel) -> EditingMethod:
    return opener(model, config)


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
