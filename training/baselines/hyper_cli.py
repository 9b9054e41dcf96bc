"""The commands `serac-train baseline …`: parsing and printing only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from serac_gateway.cli.terminal import EXIT_USAGE, fail
from serac_gateway.errors import ConfigError
from training.progress import progress_display
from training.runs import TrainingError, read_config

if TYPE_CHECKING:  # torch takes seconds
    from training.baselines.hyper_training import HyperTrained

app = typer.Typer(no_args_is_help=True, help="Train the networks that some editing methods need.")

Config = Annotated[Path, typer.Option(help="The method's settings.")]
Run = Annotated[
    Path | None, typer.Option(help="The run's folder, else that of the settings; goes on if stopped.")
]
Model = Annotated[
    Path | None,
    typer.Option(help="A causal language model as transformers saves it, else the embedded Gemma."),
]
CONFIGS = Path("configs/baselines")


@app.command()
def mend(config: Config = CONFIGS / "mend.toml", run: Run = None, model: Model = None) -> None:
    """Train MEND's network, which rewrites the gradients of edits."""
    with _errors(), progress_display("mend") as on_progress:
        from training.baselines.hyper_run import train_mend
        from training.baselines.mend import MendSettings

        settings = read_config(config, MendSettings)
        trained = train_mend(settings, run or Path(settings.run), model=model, on_progress=on_progress)
    _print(trained)


@app.command()
def ke(config: Config = CONFIGS / "ke.toml", run: Run = None, model: Model = None) -> None:
    """Train KnowledgeEditor's network, which gates the gradients of edits."""
    with _errors(), progress_display("ke") as on_progress:
        from training.baselines.hyper_run import train_knowledge_editor
        from training.baselines.knowledge_editor import KnowledgeEditorSettings

        settings = read_config(config, KnowledgeEditorSettings)
        trained = train_knowledge_editor(
            settings, run or Path(settings.run), model=model, on_progress=on_progress
        )
    _print(trained)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (ConfigError, TrainingError) as exc:
        fail(str(exc), EXIT_USAGE)


def _print(trained: HyperTrained) -> None:
    Console().print(
        f"{trained.steps} steps, target loss {trained.edit_loss:.3f}, KL {trained.locality_loss:.4f}:"
        f" {trained.weights}",
        soft_wrap=True,
    )
