"""Runs of the hyper-networks, from the public data to their weights; `serac-train baseline` calls these."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from training.baselines.causal_model import CausalModel
from training.baselines.development import hyper_network_cases
from training.baselines.hyper_network import HyperEditor
from training.baselines.hyper_training import (
    HyperTrained,
    HyperTrainingSettings,
    TrainingEdit,
    train_hyper_network,
)
from training.baselines.knowledge_editor import KnowledgeEditor, KnowledgeEditorSettings
from training.baselines.mend import Mend, MendSettings
from training.baselines.opening import open_model
from training.benchmarks.base import Case
from training.progress import OnProgress
from training.runs import begin_run


def train_mend(
    settings: MendSettings, run: Path, *, model: Path | None = None, on_progress: OnProgress
) -> HyperTrained:
    """Train MEND's network for a model, see `open_model`, or go on with it.

    Raises:
        TrainingError: See `train_hyper_network`; also a run folder of other settings.
        ConfigError: The public data is missing, or the model has no such layers or cannot be opened.
    """
    begin_run(run, settings)
    editor = Mend(_model(model, on_progress), settings, trained=False)
    return _trained(editor, settings.training, run, on_progress)


def train_knowledge_editor(
    settings: KnowledgeEditorSettings, run: Path, *, model: Path | None = None, on_progress: OnProgress
) -> HyperTrained:
    """Train KnowledgeEditor's network, or go on with it; raises as `train_mend`."""
    begin_run(run, settings)
    editor = KnowledgeEditor(_model(model, on_progress), settings, trained=False)
    return _trained(editor, settings.training, run, on_progress)


def training_edits(cases: Iterable[Case]) -> list[TrainingEdit]:
    """Of cases with a prompt that the edit is not about; without a paraphrase their own prompt is it."""
    edits = []
    for case in cases:
        paraphrases = [probe.text for probe in case.probes if probe.kind == "rephrase"]
        unrelated = [probe.text for probe in case.probes if not probe.in_scope]
        if unrelated:
            edits.append(
                TrainingEdit(
                    edit=case.edit, paraphrase=[*paraphrases, case.edit.prompt][0], unrelated=unrelated[0]
                )
            )
    return edits


def _model(folder: Path | None, on_progress: OnProgress) -> CausalModel:
    on_progress("opening the model", 0, 1)
    return open_model(folder)


def _trained(
    editor: HyperEditor, settings: HyperTrainingSettings, run: Path, on_progress: OnProgress
) -> HyperTrained:
    cases = hyper_network_cases(
        zsre_rows=settings.zsre_rows, counterfact_rows=settings.counterfact_rows, seed=settings.seed
    )
    return train_hyper_network(
        editor.model, editor.network, editor.linears, training_edits(cases), run=run, settings=settings,
        name=editor.name, on_progress=on_progress,
    )  # fmt: skip
