"""The heat map of a trace as PNG: tokens down, layers across, a panel a kind of state."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from training.baselines.tracing import Trace

_HEIGHT_OF_TOKEN = 0.24
"""Inches."""


def write_heat_map(trace: Trace, path: Path) -> None:
    """Write it; the panels have one scale, so that their colours compare."""
    panels = {
        "one layer's output": trace.state,
        f"MLPs of {trace.window} layers": trace.mlp,
        f"attentions of {trace.window} layers": trace.attention,
    }
    height = 1.9 + _HEIGHT_OF_TOKEN * len(trace.tokens)
    figure = Figure(figsize=(13, height), layout="constrained")
    largest = max(max(map(max, effects)) for effects in panels.values())
    labels = [
        (token.strip() or repr(token)) + ("*" if place in trace.subject_tokens else "")
        for place, token in enumerate(trace.tokens)
    ]
    grid = figure.subplots(1, len(panels), sharey=True)
    for axes, (name, effects) in zip(grid, panels.items(), strict=True):
        by_token = list(zip(*effects, strict=True))
        image = axes.imshow(by_token, aspect="auto", cmap="Purples", vmin=0.0, vmax=max(largest, 1e-9))
        axes.set(title=name, xlabel="layer")
        axes.set_xticks(range(0, len(effects), 2))
        axes.set_yticks(range(len(labels)), labels, parse_math=False)
    figure.colorbar(image, ax=list(grid), label="indirect effect")
    figure.suptitle(
        f"p({trace.answer.strip()!r}): clean {trace.clean:.3f}, corrupted {trace.corrupted:.3f}; * has noise",
        parse_math=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
