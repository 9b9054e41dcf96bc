"""How the measuring commands talk: errors, progress, tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from serac_gateway.cli.terminal import EXIT_USAGE, fail
from serac_gateway.errors import ConfigError
from training.runs import TrainingError


@contextmanager
def config_errors() -> Iterator[None]:
    """What cannot be used ends with one line and exit code 2."""
    try:
        yield
    except ConfigError as error:
        fail(error.message, EXIT_USAGE)
    except TrainingError as error:
        fail(str(error), EXIT_USAGE)


@contextmanager
def progress_bars() -> Iterator[OnProgress]:
    """A bar a stage, on stderr, gone at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield show


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """A table, its head first."""
    head, *rest = rows
    table = Table(*head)
    for row in rest:
        table.add_row(*row)
    Console().print(table)


OnProgress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and how much there is."""


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
