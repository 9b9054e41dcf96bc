"""Plots of a calibrated run as PNG: ROC, precision-recall, reliability, probabilities by kind of probe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display is needed, and none may be there

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from serac_gateway.models.classifiers.cross_encoder import ScopeCalibration, Stack
from training.scope.calibration import expected_calibration_error, outcomes, probabilities, reliability
from training.scope.observations import Observation


def write_plots(observations: Sequence[Observation], made: ScopeCalibration, folder: Path) -> list[Path]:
    """Write ``roc.png``, ``precision_recall.png``, ``reliability.png``, ``histograms.png``."""
    stack = made.stack
    folder.mkdir(parents=True, exist_ok=True)
    readings = [r for observation in observations for r in observation.readings]
    probabilities_N = probabilities(stack, readings)
    right_N = np.array([r.right for r in readings])
    similarity_N = np.array([r.evidence.similarity for r in readings])
    return [
        _curves(right_N, probabilities_N, similarity_N, folder),
        _precision_recall(right_N, probabilities_N, similarity_N, folder),
        _reliability(observations, stack, folder),
        _histograms(observations, stack, made.scope_threshold, folder),
    ]


def _curves(
    right_N: NDArray[np.bool_],
    probabilities_N: NDArray[np.float64],
    similarity_N: NDArray[np.float64],
    folder: Path,
) -> Path:
    figure, axes = plt.subplots(figsize=(5, 5))
    for name, values_N in (("scope_probability", probabilities_N), ("similarity alone", similarity_N)):
        false_N, true_N, _ = roc_curve(right_N, values_N)
        axes.plot(false_N, true_N, label=f"{name}, area {roc_auc_score(right_N, values_N):.4f}")
    axes.set(xlabel="false fires, share of wrong candidates", ylabel="right candidates found", xlim=(0, 0.3))
    axes.legend(loc="lower right")
    return _saved(figure, folder / "roc.png")


def _precision_recall(
    right_N: NDArray[np.bool_],
    probabilities_N: NDArray[np.float64],
    similarity_N: NDArray[np.float64],
    folder: Path,
) -> Path:  # fmt: skip
    figure, axes = plt.subplots(figsize=(5, 5))
    for name, values_N in (("scope_probability", probabilities_N), ("similarity alone", similarity_N)):
        precision_N, recall_N, _ = precision_recall_curve(right_N, values_N)
        axes.plot(recall_N, precision_N, label=name)
    axes.set(xlabel="recall", ylabel="precision")
    axes.legend(loc="lower left")
    return _saved(figure, folder / "precision_recall.png")


def _reliability(observations: Sequence[Observation], stack: Stack, folder: Path) -> Path:
    bins = reliability(observations, stack)
    figure, axes = plt.subplots(figsize=(5, 5))
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
    axes.plot([b.mean_probability for b in bins], [b.share_right for b in bins], marker="o")
    for part in bins:
        axes.annotate(str(part.count), (part.mean_probability, part.share_right), fontsize=7)
    axes.set(
        xlabel="scope_probability",
        ylabel="share in scope",
        title=f"ECE {expected_calibration_error(bins):.3f}",
    )
    return _saved(figure, folder / "reliability.png")


def _histograms(observations: Sequence[Observation], stack: Stack, threshold: float, folder: Path) -> Path:
    by_kind: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes(observations, stack):
        by_kind[f"{'in' if outcome.in_scope else 'out'}: {outcome.set_name}"].append(outcome.probability)
    names = sorted(by_kind)
    figure, grid = plt.subplots(len(names), 1, figsize=(6, 0.9 * len(names) + 1), sharex=True, squeeze=False)
    for axes, name in zip(grid[:, 0], names, strict=True):
        axes.hist(
            by_kind[name], bins=40, range=(0, 1), color="tab:green" if name.startswith("in") else "tab:red"
        )
        axes.axvline(threshold, color="black", linewidth=0.8)
        axes.set_yticks([])
        axes.set_ylabel(name, rotation=0, ha="right", fontsize=7)
    grid[-1, 0].set_xlabel("scope_probability of the most probable candidate")
    return _saved(figure, folder / "histograms.png")


def _saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path
