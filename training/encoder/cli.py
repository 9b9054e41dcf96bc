"""The commands `serac-train encoder …`: parsing and printing only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from serac_gateway.cli.terminal import EXIT_USAGE, fail, print_json
from serac_gateway.errors import ConfigError
from training.progress import progress_display
from training.runs import TrainingError, read_config

app = typer.Typer(no_args_is_help=True, help="Train and measure the retrieval encoder.")

Run = Annotated[Path, typer.Option(help="The run's folder; an unfinished run goes on.")]
DEFAULT_CONFIG = Path("configs/training/encoder.toml")
DEFAULT_RUN = Path("runs/encoder")


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="The run's configuration.")] = DEFAULT_CONFIG,
    run: Run = DEFAULT_RUN,
) -> None:
    """Train layers of multilingual-e5-small on what all of them say, and on pairs of edit and request."""
    from training.encoder import run as encoder_run

    try:
        read = read_config(config, encoder_run.EncoderConfig)
        with progress_display("training") as on_progress:
            trained = encoder_run.train(read, run, on_progress=on_progress)
    except (ConfigError, TrainingError) as exc:
        fail(str(exc), EXIT_USAGE)
    Console().print(
        f"{trained.steps} steps, loss {trained.mean_loss:.4f}: {trained.checkpoint}", soft_wrap=True
    )


@app.command()
def export(
    run: Run = DEFAULT_RUN,
    out: Annotated[Path, typer.Option(help="The folder that gets the weights.")] = DEFAULT_RUN / "weights",
) -> None:
    """Write the run's last checkpoint as the weights that ship: float16, without the words."""
    from training.encoder import run as encoder_run

    try:
        written = encoder_run.export(run, out)
    except (ConfigError, TrainingError) as exc:
        fail(str(exc), EXIT_USAGE)
    Console().print(f"wrote {written}", soft_wrap=True)


@app.command()
def project(
    config: Annotated[Path, typer.Option(help="The run's configuration.")] = DEFAULT_CONFIG,
    run: Run = DEFAULT_RUN,
    out: Annotated[Path, typer.Option(help="The folder that gets it.")] = DEFAULT_RUN / "projection",
) -> None:
    """Train the linear map of multilingual-e5-small's vectors: some minutes, most of them for encoding."""
    from training.encoder import run as encoder_run

    try:
        read = read_config(config, encoder_run.EncoderConfig)
        with progress_display("projection") as on_progress:
            written = encoder_run.project(read, run, out, on_progress=on_progress)
    except (ConfigError, TrainingError) as exc:
        fail(str(exc), EXIT_USAGE)
    Console().print(f"wrote {written}", soft_wrap=True)


@app.command()
def recall(
    weights: Annotated[
        Path | None,
        typer.Option(help="The folder of trained weights.", show_default="multilingual-e5-small"),
    ] = None,
    projection: Annotated[
        Path | None, typer.Option(help="The folder of a projection.", show_default="none")
    ] = None,
    per_group: Annotated[int, typer.Option(min=1, help="Queries of each source and language.")] = 150,
    seed: Annotated[int, typer.Option(help="Draws the queries.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Ask held-out queries of all stored edits: which find theirs, and how many candidates are read."""
    from training.encoder import run as encoder_run

    try:
        with progress_display("recall") as on_progress:
            made = encoder_run.recall(
                weights, projection, per_group=per_group, seed=seed, on_progress=on_progress
            )
    except (ConfigError, TrainingError) as exc:
        fail(str(exc), EXIT_USAGE)
    if json:
        print_json(made)
        return
    title = f"{made.edits} edits, floor {made.limits.floor}, margin {made.limits.margin}"
    table = Table("queries", "count", "found", "first", "cosine", "read", "unread", title=title)
    for row in made.groups:
        table.add_row(
            row.group, str(row.count), f"{row.among_candidates:.3f}", f"{row.first:.3f}",
            f"{row.own_median:.3f}", f"{row.read:.2f}", f"{row.unread:.3f}",
        )  # fmt: skip
    Console().print(table)
