"""The command `serac-train`: parsing and printing only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serac_gateway.cli.options import UrlOption
from serac_gateway.cli.terminal import EXIT_REFUSED, EXIT_USAGE, fail, print_json
from serac_gateway.errors import ConfigError
from training.baselines import cli as baselines
from training.baselines import hyper_cli as hyper_networks
from training.consolidation.cli import consolidate
from training.encoder import cli as encoder
from training.evaluation import cli as evaluation
from training.evaluation.answers.methods import cli as methods
from training.progress import progress_display
from training.runs import TrainingError, WorseWeightsError, read_config
from training.scope.config import ScopeConfig

app = typer.Typer(
    no_args_is_help=True,
    help="Train and measure the encoder, the scope classifier and the counterfactual model.",
)
app.add_typer(encoder.app, name="encoder")
app.add_typer(hyper_networks.app, name="baseline")
app.add_typer(evaluation.app, name="evaluate")
app.command()(evaluation.calibrate_similarity)
app.command()(consolidate)
app.command()(methods.report)
app.command()(baselines.trace)

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
OWN_CONFIG = Path("configs/training/own.toml")
OWN_RUN = Path("runs/own")

AdapterConfig = Annotated[Path, typer.Option("--config", help="The run's configuration.")]
AdapterOut = Annotated[Path, typer.Option(help="The folder with the adapter.")]
DEFAULT_ADAPTER_CONFIG = Path("configs/training/counterfactual.toml")
DEFAULT_ADAPTER_RUN = Path("runs/counterfactual")


@app.command()
def scope(
    config: Annotated[
        Path | None,
        typer.Option(help="The run's configuration.", show_default=f"{DEFAULT_CONFIG} or {OWN_CONFIG}"),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="The run's folder; an unfinished run goes on.", show_default=f"{DEFAULT_RUN} or {OWN_RUN}"
        ),
    ] = None,
    edits: Edits = None,
    traffic: Traffic = None,
    current: Annotated[
        Path | None,
        typer.Option(help="With --traffic: the weights to compare with.", show_default="those that ship"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="With --traffic: print the report as JSON.")] = False,
) -> None:
    """Train the cross-encoder; continues where a stopped run was.

    With --edits and --traffic: on your own data, from the weights that ship, then calibrated and compared
    with them on rows that were held out. `serac-train promote` writes the new weights.
    """
    if (edits is None) != (traffic is None):
        fail("--edits and --traffic go together; give both or neither", EXIT_USAGE)
    if edits is not None and traffic is not None:
        _train_own(config or OWN_CONFIG, run or OWN_RUN, edits, traffic, current, json)
        return
    from training.scope import run as scope_run

    with _errors(), progress_display("training") as on_progress:
        trained = scope_run.train(
            read_config(config or DEFAULT_CONFIG, ScopeConfig), run or DEFAULT_RUN, on_progress=on_progress
        )
    Console().print(
        f"{trained.steps} steps, loss {trained.mean_loss:.4f}: {trained.checkpoint}", soft_wrap=True
    )


def _train_own(
    config: Path, run: Path, edits: Path, traffic: Path, current: Path | None, as_json: bool
) -> None:
    from serac_gateway.models.loading import SHIPPED_CLASSIFIER
    from training.scope import own_run
    from training.scope.comparison import comparison_table

    with _errors(), progress_display("own data") as on_progress:
        comparison = own_run.train_own(
            read_config(config, ScopeConfig), run, edits=edits, traffic=traffic,
            current=current or SHIPPED_CLASSIFIER, on_progress=on_progress,
        )  # fmt: skip
    if as_json:
        print_json(comparison)
        return
    out = Console()
    out.print(comparison_table(comparison))
    for sentence in comparison.too_few:
        out.print(f"[yellow]too few:[/] {escape(sentence)}", soft_wrap=True)
    if comparison.worse:
        out.print(f"[red]worse:[/] {escape('; '.join(comparison.worse))}", soft_wrap=True)
    else:
        out.print(f"next: serac-train promote {run} --to FOLDER", soft_wrap=True)


@app.command()
def promote(
    run: Annotated[Path, typer.Argument(help="The folder of a run on your own data.")],
    to: Annotated[Path, typer.Option(help="The folder that gets the weights.")],
    force: Annotated[bool, typer.Option("--force", help="Write them though they are worse.")] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="Then have the running gateway reload: see serac reload.")
    ] = False,
    url: UrlOption = None,
) -> None:
    """Write the weights of a run on your own data where a gateway reads them; refuses worse ones.

    Name the folder by models.scope_classifier_shadow to have them decide on trial, and by
    models.scope_classifier to put them in force.
    """
    from training.scope import own_run

    with _errors():
        comparison = own_run.promote(run, to, force=force)
    for sentence in comparison.too_few:
        Console(stderr=True).print(f"[yellow]too few:[/] {escape(sentence)}", soft_wrap=True)
    Console().print(f"wrote {to}", soft_wrap=True)
    if reload:
        from serac_gateway.cli.reload import reload as reload_gateway

        reload_gateway(url)


@app.command()
def calibrate(
    config: Config = DEFAULT_CONFIG,
    run: Run = DEFAULT_RUN,
    out: Out = DEFAULT_RUN / "weights",
    max_false_fire_rate: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The lowest threshold that keeps it; default: best harmonic mean."),
    ] = None,
    reuse: Annotated[bool, typer.Option(help="Choose anew on what the last call observed.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the calibration as JSON.")] = False,
) -> None:
    """Export weights, fit probabilities and choose the one threshold; draw the plots."""
    from training.scope import run as scope_run
    from training.scope.plots import write_plots

    with _errors(), progress_display("calibrating") as on_progress:
        made, observed = scope_run.calibrate(
            read_config(config, ScopeConfig), run, out, reuse=reuse,
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

    with _errors(), progress_display("training") as on_progress:
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

    with _errors(), progress_display("validating") as on_progress:
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


@app.command()
def forms(
    data_dir: Annotated[Path, typer.Option(help="Where the converted encoder lies or gets made.")] = Path(
        "runs/forms"
    ),
    out: Annotated[Path | None, typer.Option(help="The folder of the heads.", show_default="ours")] = None,
) -> None:
    """Fit the heads that read in which form a request wants its answer, and measure them across folds."""
    from serac_gateway.models.loading import SHIPPED_FORM_HEADS, open_embedded_encoder
    from training.forms.train import make_examples, train_heads

    with _errors():
        reports = train_heads(open_embedded_encoder(data_dir), make_examples(), out or SHIPPED_FORM_HEADS)
    table = Table("head", "examples", "right", "forms seen in plain questions")
    for head, report in reports.items():
        seen = "" if report.false_forms is None else f"{report.false_forms:.4f}"
        table.add_row(head, str(report.examples), f"{report.right:.3f}", seen)
    Console().print(table)


def main() -> None:
    """The entry point of `serac-train`."""
    app()


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except WorseWeightsError as exc:
        fail(str(exc), EXIT_REFUSED)
    except (ConfigError, TrainingError, FileNotFoundError) as exc:
        fail(str(exc), EXIT_USAGE)


if __name__ == "__main__":
    main()
