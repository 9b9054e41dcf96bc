"""What a starting gateway shows."""

from __future__ import annotations

import io
import re
import time

from rich.console import Console

from serac_gateway.cli.start_progress import StartProgress
from serac_gateway.models.progress import Step


def test_a_terminal_gets_a_bar_with_the_time_left_and_is_clean_at_the_end() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=80, _environ={})
    with StartProgress(console) as progress:
        for done in (0.0, 0.25, 0.5):
            progress.show("language models", Step("converting Gemma 3 270M [1]", done))
            time.sleep(0.02)
        assert "language models: converting Gemma 3 270M [1]" in console_text(progress)
        assert re.search(r"0:00:0\d left", console_text(progress))
        progress.show("language models", Step("converting Gemma 3 270M [1]", 1.0))
        assert "converting" not in console_text(progress)
        progress.show("language models", Step("loading"))
        assert "loading" in console_text(progress)
        assert "converting" not in console_text(progress)
        progress.stop()
        progress.stop()
    assert written.getvalue().endswith("\x1b[2K")  # the lines are erased


def test_without_a_terminal_each_step_is_one_line_when_it_begins() -> None:
    written = io.StringIO()
    with StartProgress(Console(file=written, force_terminal=False, width=120)) as progress:
        for step in (Step("converting [x]", 0.0), Step("converting [x]", 0.5), Step("loading")):
            progress.show("base model", step)
        progress.show("encoder", Step("exporting"))
    assert written.getvalue().splitlines() == [
        "base model: converting [x]",
        "base model: loading",
        "encoder: exporting",
    ]


def console_text(progress: StartProgress) -> str:
    """What the bars show now, as plain text."""
    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        console.print(progress.renderable())
    return capture.get()
