"""Training of hyper-networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

from serac_gateway.domain.edits import EditDraft
from tests.unit.training.baselines.states import PARIS, RIVER, WHO, parameters
from training.baselines.causal_model import CausalModel
from training.baselines.hyper_network import HyperEditor
from training.baselines.hyper_run import training_edits
from training.baselines.hyper_training import (
    HyperTrained,
    HyperTrainingSettings,
    TrainingEdit,
    train_hyper_network,
)
from training.baselines.knowledge_editor import KnowledgeEditor, KnowledgeEditorSettings
from training.baselines.mend import Mend, MendSettings
from training.benchmarks.base import fact, probes
from training.runs import TrainingError

EDITS = [
    TrainingEdit(edit=EditDraft(prompt=PARIS, target_new="Seine"), paraphrase=PARIS, unrelated=WHO),
    TrainingEdit(edit=EditDraft(prompt=RIVER, target_new="France"), paraphrase=RIVER, unrelated="A b"),
]
TRAINING = HyperTrainingSettings(
    steps=12,
    edits_a_step=2,
    learning_rate=0.02,
    edit_weight=1.0,
    statistics_edits=2,
    checkpoint_every_steps=6,
)


class StoppedError(Exception):
    """Somebody stopped the run."""


def _mend(model: CausalModel, training: HyperTrainingSettings = TRAINING) -> Mend:
    return Mend(model, MendSettings(layers=(2,), rank=4, edit_rate=1e-3, training=training), trained=False)


def _train(
    editor: HyperEditor, run: Path, settings: HyperTrainingSettings = TRAINING, stop_at: int = -1
) -> HyperTrained:
    def stop(part: str, done: int, total: int) -> None:
        if part.startswith("target") and done == stop_at:
            raise StoppedError

    return train_hyper_network(
        editor.model, editor.network, editor.linears, EDITS, run=run, settings=settings, name=editor.name,
        on_progress=stop,
    )  # fmt: skip


def _state(editor: HyperEditor) -> Mapping[str, Tensor]:
    return editor.network.state_dict()


def _losses(editor: HyperEditor) -> list[float]:
    losses = []
    for each in EDITS:
        editor.edit([each.edit])
        (scored,) = editor.model.target_log_probs([(each.paraphrase, each.edit.target_new)])
        losses.append(-scored.mean().item())
        editor.undo()
    return losses


@pytest.mark.parametrize("method", ["mend", "ke"])
def test_trained_it_edits_better(model: CausalModel, tmp_path: Path, method: str) -> None:
    """The training edits get likelier than by the network as it began; the model's weights stay."""

    def editor() -> HyperEditor:
        if method == "mend":
            return _mend(model)
        return KnowledgeEditor(
            model, KnowledgeEditorSettings(layers=(2,), hidden=6, condition=8, gate_start=0.0), trained=False
        )

    weights = parameters(model)
    before = _losses(editor())
    trained = editor()
    _train(trained, tmp_path)
    assert all(map(torch.equal, parameters(model), weights))
    assert sum(_losses(trained)) < sum(before)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(model: CausalModel, tmp_path: Path) -> None:
    """After a stop behind a checkpoint the weights are in the end bit by bit those of an unbroken run."""
    whole, stopped, resumed = _mend(model), _mend(model), _mend(model)
    _train(whole, tmp_path / "whole")
    with pytest.raises(StoppedError):
        _train(stopped, tmp_path / "stopped", stop_at=8)
    trained = _train(resumed, tmp_path / "stopped")
    assert trained.steps == 12
    assert all(torch.equal(value, _state(resumed)[name]) for name, value in _state(whole).items())


def test_what_was_trained_is_read_by_the_method(model: CausalModel, tmp_path: Path) -> None:
    """The method edits with the weights of the run's folder."""
    trained = _mend(model)
    _train(trained, tmp_path)
    read = Mend(
        model, MendSettings(layers=(2,), rank=4, edit_rate=1e-3, run=str(tmp_path), training=TRAINING)
    )
    assert _losses(read) == _losses(trained)


def test_a_run_of_other_settings_is_refused(model: CausalModel, tmp_path: Path) -> None:
    """The error names the folder."""
    _train(_mend(model), tmp_path)
    with pytest.raises(TrainingError, match="another run"):
        _train(_mend(model), tmp_path, msgspec.structs.replace(TRAINING, steps=13))


def test_a_loss_that_is_not_finite_ends_training(model: CausalModel, tmp_path: Path) -> None:
    """The error says what to change."""
    editor = _mend(model)
    editor.network.get_parameter("rates_W").data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="lower learning_rate"):
        _train(editor, tmp_path)


def test_a_broken_constraint_raises_its_weight(model: CausalModel, tmp_path: Path) -> None:
    """With a multiplier the KL ends lower than with none."""
    loose, strict = (
        msgspec.structs.replace(TRAINING, locality_weight=0.0, multiplier_rate=rate) for rate in (0.0, 50.0)
    )
    without, with_it = (
        _train(_mend(model, settings), tmp_path / str(settings.multiplier_rate), settings)
        for settings in (loose, strict)
    )
    assert with_it.locality_loss < without.locality_loss


def test_cases_become_training_edits() -> None:
    """A case needs a prompt that its edit is not about; its own prompt stands in for a paraphrase."""
    in_and_out = [(["P, it is"], ["Q is"]), ([], ["Q is"]), (["P"], [])]
    cases = [
        fact(
            f"case-{number}",
            prompt="P is",
            target_new="x",
            subject="P",
            probes=(
                *probes("rephrase", rephrases, in_scope=True),
                *probes("neighbour", others, in_scope=False),
            ),
        )
        for number, (rephrases, others) in enumerate(in_and_out)
    ]
    made = [(each.paraphrase, each.unrelated) for each in training_edits(cases)]
    assert made == [("P, it is", "Q is"), ("P is", "Q is")]
