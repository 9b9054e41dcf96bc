"""`serac-train trace`: parsing and printing only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serac_gateway.cli.terminal import EXIT_USAGE, fail, print_json
from serac_gateway.errors import ConfigError
from training.progress import progress_display
from training.runs import TrainingError, read_config

DEFAULT_CONFIG = Path("configs/baselines/tracing.toml")


def trace(
    prompt: Annotated[str, typer.Option(help="A sentence to be continued, or a question.")],
    subject: Annotated[str, typer.Option(help="Whose tokens get noise, as it stands in the prompt.")],
    answer: Annotated[
        str | None, typer.Option(help="Whose first token is followed; default: what the model says next.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="The folder of a causal language model; default: the embedded Gemma.")
    ] = None,
    config: Annotated[Path, typer.Option(help="Noise, draws, window and seed.")] = DEFAULT_CONFIG,
    out: Annotated[Path, typer.Option(help="The heat map, PNG.")] = Path("runs/trace.png"),
    json: Annotated[bool, typer.Option("--json", help="Print the effects as JSON.")] = False,
) -> None:
    """Show where an answer comes from: noise on the subject, states put back by layer and token."""
    from training.baselines.heat_map import write_heat_map
    from training.baselines.opening import open_model
    from training.baselines.tracing import TracingConfig, traced

    try:
        settings = read_config(config, TracingConfig)
        with progress_display("tracing") as on_progress:
            result = traced(
                open_model(model), prompt, subject, settings, answer=answer, on_progress=on_progress
            )
    except (ConfigError, TrainingError) as exc:
        fail(str(exc), EXIT_USAGE)
    write_heat_map(result, out)
    if json:
        print_json(result)
        return
    table = Table(
        "token", "layer's output", "at", "MLPs", "at", "attentions", "at",
        title=f"p({result.answer.strip()!r}): clean {result.clean:.3f}, corrupted {result.corrupted:.3f};"
        " the highest effect of each token, and at which layer",
    )  # fmt: skip
    for place, token in enumerate(result.tokens):
        cells = []
        for effects in (result.state, result.mlp, result.attention):
            of_layers = [layer[place] for layer in effects]
            best = max(range(len(of_layers)), key=of_layers.__getitem__)
            cells += [f"{of_layers[best]:.3f}", str(best)]
        table.add_row(escape(token) + (" *" if place in result.subject_tokens else ""), *cells)
    Console().print(table)
    Console().print(f"wrote {out}", soft_wrap=True)
