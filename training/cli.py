"""The command `serac-train`: parsing and printing only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from serac_gateway.cli.terminal import EXIT_USAGE, fail, print_json
from serac_gateway.errors import ConfigError
from training.evaluation import cli as evaluation
from training.runs import TrainingError, read_config
from training.scope.config import ScopeConfig
from training.scope.run import OnProgress, Own

app = typer.Typer(
    no_args_is_help=True, help="Train and measure the scope classifier and the counterfactual model."
)
app.add_typer(evaluation.app, name="evaluate")
app.command()(evaluation.calibrate_similarity)

Config = Annotated[Path, typer.Option(help="The run's configuration.")]
Run = Annotated[Path, typer.Option(help="The run's folder; an unfinished run goes on.")]
Out = Annotated[Path, typer.Option(help="The folder that gets the weights and calibration.json.")]
Edits = Annotated[
    Path | None, typer.Option(help="Your own edits, NDJSON: serac edits export. Goes with --traffic.")
]
Traffic = Annotated[
    Path | None, typer.Option(help='Your own traffic, NDJSON: {"query": …, "edit_id": … or null}.')
]

DEFAULT_CONFIG = Path("configs/training/scope.toml")
DEFAULT_RUN = Path("runs/scope")

AdapterConfig = Annotated[Path, typer.Option("--config", help="The run's configuration.")]
AdapterOut = Annotated[Path, typer.Option(help="The folder with the adapter.")]
DEFAULT_ADAPTER_CONFIG = Path("configs/training/counterfactual.toml")
DEFAULT_ADAPTER_RUN = Path("runs/counterfactual")


@app.command()
def scope(
    config: Config = DEFAULT_CONFIG, run: Run = DEFAULT_RUN, edits: Edits = None, traffic: Traffic = None
) -> None:
    """Train the cross-encoder; continues where a stopped run was."""
    from training.scope import run as scope_run

    with _errors(), _progress("training") as on_progress:
        trained = scope_run.train(
            read_config(config, ScopeConfig), run, own=_own(edits, traffic), on_progress=on_progress
        )
    Console().print(
        f"{trained.steps} steps, loss {trained.mean_loss:.4f}: {trained.checkpoint}", soft_wrap=True
    )


@app.command()
def calibrate(
    config: Config = DEFAULT_CONFIG,
    run: Run = DEFAULT_RUN,
    out: Out = DEFAULT_RUN / "weights",
    edits: Edits = None,
    traffic: Traffic = None,
    max_false_fire_rate: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The lowest threshold that keeps it; default: best harmonic mean."),
    ] = None,
    reuse: Annotated[bool, typer.Option(help="Choose anew on what the last call observed.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the calibration as JSON.")] = False,
) -> None:
    """Export int8 weights, fit probabilities and choose the one threshold; draw the plots."""
    from training.scope import run as scope_run
    from training.scope.plots import write_plots

    with _errors(), _progress("calibrating") as on_progress:
        made, observed = scope_run.calibrate(
            read_config(config, ScopeConfig), run, out, own=_own(edits, traffic), reuse=reuse,
            max_false_fire_rate=max_false_fire_rate, on_progress=on_progress,
        )  # fmt: skip
        plots = write_plots(observed, made, run)
    if json:
        print_json(made)
        return
    table = Table("set", "rate", title=f"threshold {made.scope_threshold:.3f}")
    for name, rate in made.provenance["by_set"].items():
        table.add_row(name, f"{rate:.4f}")
    Console().print(table)
    Console().print(f"wrote {out} and {', '.join(str(path) for path in plots)}", soft_wrap=True)


@app.command("explain-errors")
def explain_errors(
    run: Run = DEFAULT_RUN,
    weights: Annotated[Path, typer.Option(help="The folder with calibration.json.")] = DEFAULT_RUN
    / "weights",
    count: Annotated[int, typer.Option(min=1, help="False fires and misses shown, each.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print rows as JSON.")] = False,
) -> None:
    """The worst false fires and misses of the last calibration, as a table."""
    from serac_gateway.models.classifiers.cross_encoder import read_calibration
    from training.scope import observations
    from training.scope import run as scope_run

    with _errors():
        observed = observations.load(run)
        rows = scope_run.worst(observed, read_calibration(weights)[1], count)
    if json:
        print_json(rows)
        return
    table = Table("error", "probability", "similarity", "query", "edit", "set")
    for row in rows:
        similarity = "" if row.similarity is None else f"{row.similarity:.3f}"
        table.add_row(
            row.error,
            f"{row.scope_probability:.3f}",
            similarity,
            row.query[-160:],
            row.edit[:120],
            row.set_name,
        )
    Console().print(table)


@app.command()
def counterfactual(config: AdapterConfig = DEFAULT_ADAPTER_CONFIG, run: Run = DEFAULT_ADAPTER_RUN) -> None:
    """Train the counterfactual model's adapter; continues where a stopped run was."""
    from training.counterfactual import run as counterfactual_run

    with _errors(), _progress("training") as on_progress:
        trained = counterfactual_run.train(
            read_config(config, counterfactual_run.CounterfactualConfig), run, on_progress=on_progress
        )
    Console().print(
        f"{trained.steps} steps, loss {trained.mean_loss:.4f}: {trained.checkpoint}", soft_wrap=True
    )


@app.command("counterfactual-export")
def counterfactual_export(
    config: AdapterConfig = DEFAULT_ADAPTER_CONFIG,
    run: Run = DEFAULT_ADAPTER_RUN,
    out: AdapterOut = DEFAULT_ADAPTER_RUN / "adapter",
) -> None:
    """Write the run's last checkpoint as the adapter that ships: float16, with card and notice."""
    from training.counterfactual import run as counterfactual_run

    with _errors():
        counterfactual_run.export(read_config(config, counterfactual_run.CounterfactualConfig), run, out)
    Console().print(f"wrote {out}", soft_wrap=True)


@app.command("counterfactual-validate")
def counterfactual_validate(
    config: AdapterConfig = DEFAULT_ADAPTER_CONFIG,
    run: Run = DEFAULT_ADAPTER_RUN,
    adapter: AdapterOut = DEFAULT_ADAPTER_RUN / "adapter",
    raw: Annotated[bool, typer.Option(help="Measure the model without an adapter.")] = False,
    answers: Annotated[Path | None, typer.Option(help="Write every answer here, NDJSON.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print rows as JSON.")] = False,
) -> None:
    """Answer the held-out examples greedily in int8, and count what is right, by form."""
    from training.counterfactual import run as counterfactual_run
    from training.counterfactual.report import answer_table, write_answers
    from training.counterfactual.validation import summary

    with _errors(), _progress("validating") as on_progress:
        outcomes = counterfactual_run.validate(
            read_config(config, counterfactual_run.CounterfactualConfig),
            run,
            None if raw else adapter,
            on_progress=on_progress,
        )
    if answers is not None:
        write_answers(answers, outcomes)
    if json:
        print_json(summary(outcomes))
        return
    Console().print(answer_table(summary(outcomes)))


@app.command()
def activations(
    adapter: Annotated[
        Path | None, typer.Option(help="The folder of an adapter; its activations are written into it.")
    ] = None,
) -> None:
    """Measure the embedded model's activations, which its conversion to int8 needs."""
    from serac_gateway.models.language_models.conversion_request import SHIPPED_ACTIVATIONS
    from training.counterfactual.activations import write_activations

    out = adapter or SHIPPED_ACTIVATIONS
    with _errors():
        write_activations(out, adapter=adapter)
    Console().print(f"wrote {out}", soft_wrap=True)


def main() -> None:
    """The entry point of `serac-train`."""
    app()


def _own(edits: Path | None, traffic: Path | None) -> Own | None:
    if (edits is None) != (traffic is None):
        raise ConfigError("--edits and --traffic go together; give both or neither")
    return Own(edits=edits, traffic=traffic) if edits is not None and traffic is not None else None


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (ConfigError, TrainingError, FileNotFoundError) as exc:
        fail(str(exc), EXIT_USAGE)


@contextmanager
def _progress(what: str) -> Iterator[OnProgress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def on_progress(part: str, done: int, total: int) -> None:
            bar.update(task, description=f"{what}: {part}", completed=done, total=total)

        yield on_progress


if __name__ == "__main__":
    main()
