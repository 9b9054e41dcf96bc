"""Options that several measuring commands have, so that they read the same in each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RUNS = Path("runs/evaluation")

BenchmarkOption = Annotated[str, typer.Option(help="zsre, counterfact, …; a wrong name lists them.")]
PathOption = Annotated[Path | None, typer.Option(help="The published file; default: the shared data.")]
EditsOption = Annotated[int | None, typer.Option(min=1, help="Store only so many edits; default: all.")]
AskOption = Annotated[
    int | None, typer.Option(min=1, help="Ask the probes of so many cases only; default: of all.")
]
OutOption = Annotated[Path | None, typer.Option(help="The run's folder; an unfinished run goes on.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")]
StoredOption = Annotated[int, typer.Option(min=1, help="Edits in the store.")]
EncoderOption = Annotated[
    str | None, typer.Option(help="A sentence-transformers id or folder; default: the embedded encoder.")
]
ClassifierOption = Annotated[
    str | None, typer.Option(help="A folder that training wrote; default: the shipped one.")
]
SeedOption = Annotated[int, typer.Option(help="Draws the edits.")]
