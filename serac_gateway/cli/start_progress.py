"""Shows on standard error what a gateway that starts is doing, and how long each step still takes."""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from serac_gateway.models.progress import Step

_BAR_WIDTH = 14
"""In columns: the longest step and its time fit beside it into a terminal of 80."""


class _TimeColumn(ProgressColumn):
    """The time left, or as long as it is not known the time that has passed."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if task.total is not None and task.time_remaining is not None:
            return Text(f"{timedelta(seconds=int(task.time_remaining))} left")
        return Text(f"{timedelta(seconds=int(task.elapsed or 0))}")


class StartProgress:
    """On a terminal a line for each part, with a bar and the time left where the step knows its share.

    Elsewhere each step is a line of its own, printed when it begins. For any thread.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(_BAR_WIDTH),
            _TimeColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._texts: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._lines.start()
        self._tasks["gateway"] = self._lines.add_task("gateway: starting", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def show(self, part: str, step: Step) -> None:
        """`part` is at `step`; see `OnProgress`."""
        description = f"{part}: {step.text}"
        begins = self._texts.get(part) != step.text
        self._texts[part] = step.text
        if not self._console.is_terminal:
            if begins:
                self._console.print(description, markup=False)
            return
        total = None if step.done is None else 1.0
        if part not in self._tasks:
            self._tasks[part] = self._lines.add_task(escape(description), total=total)
        elif begins:
            self._lines.reset(self._tasks[part], description=escape(description), total=total)
        self._lines.update(
            self._tasks[part], completed=step.done or 0.0, total=total, visible=step.done != 1.0
        )

    def renderable(self) -> RenderableType:
        """The lines as they are now."""
        return self._lines.get_renderable()

    def stop(self) -> None:
        """Remove the lines; may be called more than once."""
        self._lines.stop()
