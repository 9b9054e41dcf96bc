"""Progress of training commands: a bar with a time estimate, or lines where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

OnProgress = Callable[[str, int, int], None]
"""Called with a part of the work, how much of it is done, and how much there is."""

_LINE_EVERY_S = 20.0


@contextmanager
def progress_display(what: str) -> Iterator[OnProgress]:
    """Gives the function to call while `what` goes on."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(what)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        parts = _Parts()

        def on_progress(part: str, done: int, total: int) -> None:
            if parts.begins(done, total):  # the estimate is of this part alone
                bar.reset(task, total=total)
            bar.update(task, description=f"{what}: {part}", completed=done, total=total)

        yield on_progress


class _Parts:
    """Notices where another part of the work begins: its count goes back, or its total changes."""

    def __init__(self) -> None:
        self._done, self._total = 0, -1

    def begins(self, done: int, total: int) -> bool:
        """Whether this is the first call of a part."""
        is_new = total != self._total or done < self._done
        self._done, self._total = done, total
        return is_new


class _Lines:
    """Writes a line at the beginning and end of each part, and every 20 seconds in between."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._parts = _Parts()
        self._begun = (0.0, 0)
        self._written_at = 0.0

    def __call__(self, part: str, done: int, total: int) -> None:
        now = self._clock()
        is_new = self._parts.begins(done, total)
        if is_new:
            self._begun = (now, done)
        if not is_new and done < total and now - self._written_at < _LINE_EVERY_S:
            return
        self._written_at = now
        begun_at, first = self._begun
        rate = (done - first) / (now - begun_at) if now > begun_at else 0.0
        left = f", about {_span((total - done) / rate)} left" if rate and done < total else ""
        sys.stderr.write(f"{self._what}: {part} {done:,}/{total:,}{left}\n")


def _span(seconds: float) -> str:
    return f"{round(seconds)} s" if seconds < 90 else f"{round(seconds / 60)} min"
