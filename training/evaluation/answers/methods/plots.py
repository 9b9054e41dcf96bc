"""Plots of several methods: stability over edits, quality against cost, strengths. PNG in base64."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
from matplotlib import colormaps
from matplotlib.figure import Figure

from training.evaluation.pages import png

_MARKERS = "osD^vPX*<>"
_FASTEST_S = 1e-3
"""Quicker edits are drawn as this."""


class MethodPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A method at a number of edits."""

    method: str
    edits: int
    seconds_an_edit: float
    product: float
    axes: Mapping[str, float]
    """Shares by name; NaN where nothing was measured."""


def stability(title: str, points: Sequence[MethodPoint]) -> str:
    """Shares over the number of edits, a line a method."""
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for name, panel in zip(("reliability", "locality", "product"), panels, strict=True):
        for method, (color, marker) in _styles(points).items():
            own = [point for point in points if point.method == method]
            panel.plot(
                [point.edits for point in own],
                [point.product if name == "product" else point.axes[name] for point in own],
                color=color, marker=marker, label=method, linewidth=1.6, alpha=0.85,
            )  # fmt: skip
        panel.set(xscale="log", xlabel="edits on the model", ylim=(-0.04, 1.04), title=name)
        panel.set_xticks(sorted({point.edits for point in points}))
        panel.set_xticklabels([f"{edits:,}" for edits in sorted({point.edits for point in points})])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("share")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    figure.suptitle(title)
    return png(figure)


def quality_and_cost(title: str, points: Sequence[MethodPoint]) -> str:
    """The product over seconds an edit, a point a method."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    panel = figure.subplots()
    styles = _styles(points)
    for point in _largest(points):
        if math.isnan(point.product) or math.isnan(point.seconds_an_edit):
            continue
        color, marker = styles[point.method]
        place = (max(point.seconds_an_edit, _FASTEST_S), point.product)
        panel.scatter(*place, color=color, marker=marker, s=70)
        panel.annotate(
            f"{point.method} ({point.edits:,})", place, xytext=(6, 5), textcoords="offset points", fontsize=8
        )
    panel.set(
        xscale="log", xlabel="seconds an edit", ylabel="reliability × generalization × locality",
        ylim=(-0.04, 1.04), title=title,
    )  # fmt: skip
    panel.grid(alpha=0.3)
    return png(figure)


def radar(title: str, points: Sequence[MethodPoint]) -> str:
    """The shares of each method around a circle, small figures side by side; no value is drawn as 0."""
    largest = _largest(points)
    names = [name for name in largest[0].axes if any(not math.isnan(point.axes[name]) for point in largest)]
    angles = [2 * math.pi * place / len(names) for place in range(len(names))]
    columns = min(5, len(largest))
    lines = math.ceil(len(largest) / columns)
    figure = Figure(figsize=(2.7 * columns, 2.9 * lines), layout="constrained")
    styles = _styles(points)
    for place, point in enumerate(largest):
        panel = figure.add_subplot(lines, columns, place + 1, projection="polar")
        values = [0.0 if math.isnan(point.axes[name]) else point.axes[name] for name in names]
        color, _ = styles[point.method]
        panel.plot([*angles, angles[0]], [*values, values[0]], color=color)
        panel.fill([*angles, angles[0]], [*values, values[0]], color=color, alpha=0.25)
        panel.set_xticks(angles)
        panel.set_xticklabels([name[:5] + "." for name in names], fontsize=7)
        panel.set_yticks([0.5, 1])
        panel.set_yticklabels([])
        panel.set_ylim(0, 1)
        panel.set_title(f"{point.method}, {point.edits:,}", fontsize=9)
    figure.suptitle(title)
    return png(figure)


def _largest(points: Sequence[MethodPoint]) -> list[MethodPoint]:
    """Of each method the point with most edits."""
    return list({point.method: point for point in sorted(points, key=lambda point: point.edits)}.values())


def _styles(points: Sequence[MethodPoint]) -> dict[str, tuple[tuple[float, ...], str]]:
    methods = sorted({point.method for point in points})
    colors = colormaps["tab20"]
    return {
        method: (colors(place % 20), _MARKERS[place % len(_MARKERS)]) for place, method in enumerate(methods)
    }
