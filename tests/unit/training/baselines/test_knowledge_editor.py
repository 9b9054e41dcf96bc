"""KnowledgeEditor: its gates."""

from __future__ import annotations

import pytest
import torch

from serac_gateway.domain.edits import EditDraft
from tests.unit.training.baselines.states import PARIS, parameters, states
from training.baselines.causal_model import CausalModel
from training.baselines.knowledge_editor import (
    Gate,
    KnowledgeEditor,
    KnowledgeEditorNetwork,
    KnowledgeEditorSettings,
)

EDIT = EditDraft(prompt=PARIS, target_new="Seine", target_true="Paris")
SETTINGS = KnowledgeEditorSettings(layers=(2,), hidden=6, condition=8, gate_start=0.0)


@pytest.fixture
def editor(model: CausalModel) -> KnowledgeEditor:
    """As it begins."""
    return KnowledgeEditor(model, SETTINGS, trained=False)


def _gates(editor: KnowledgeEditor) -> list[Gate]:
    assert isinstance(editor.network, KnowledgeEditorNetwork)
    return [gate for gate in editor.network.gates if isinstance(gate, Gate)]


def test_a_closed_gate_changes_nothing(model: CausalModel, editor: KnowledgeEditor) -> None:
    """With σ(η) = 0 states are bit-equal after an edit."""
    before = states(model, PARIS)
    for gate in _gates(editor):
        gate.eta.bias.data.fill_(-1e4)
        gate.delta.bias.data.fill_(1)
    editor.edit([EDIT])
    assert torch.equal(states(model, PARIS), before)


def test_shares_sum_to_one(editor: KnowledgeEditor) -> None:
    """softmax(α) and softmax(β) share the gate and the offset out over the output rows."""
    assert isinstance(editor.network, KnowledgeEditorNetwork)
    condition = editor.network.read(EDIT)
    assert len(_gates(editor)) == 2
    for gate in _gates(editor):
        for shares in gate.shares(condition):
            assert (shares > 0).all()
            assert shares.sum().item() == pytest.approx(1, abs=1e-5)


def test_untrained_it_goes_down_the_gradient(model: CausalModel, editor: KnowledgeEditor) -> None:
    """An edit makes its target likelier; undone, all bits are as before."""
    before, weights, hooked = states(model, PARIS), parameters(model), model.hook_count()
    (unedited,) = model.target_log_probs([(PARIS, "Seine")])
    editor.edit([EDIT])
    (edited,) = model.target_log_probs([(PARIS, "Seine")])
    assert edited.mean() > unedited.mean()
    assert editor.held_bytes == 2 * 32 * 64 * 4
    editor.undo()
    assert torch.equal(states(model, PARIS), before)
    assert all(map(torch.equal, parameters(model), weights))
    assert (model.hook_count(), editor.held_bytes) == (hooked, 0)


def test_the_old_target_is_read(editor: KnowledgeEditor) -> None:
    """Edits that differ in it, in the prompt or in the new target are read apart."""
    assert isinstance(editor.network, KnowledgeEditorNetwork)
    others = [
        EditDraft(prompt=PARIS, target_new="Seine"),
        EditDraft(prompt=PARIS, target_new="France", target_true="Paris"),
        EditDraft(prompt="Who?", target_new="Seine", target_true="Paris"),
    ]
    read = editor.network.read(EDIT)
    assert not any(torch.equal(editor.network.read(other), read) for other in others)


def test_the_models_embeddings_are_not_its_own(editor: KnowledgeEditor) -> None:
    """They are shared and frozen: no weight of the network has a row for each token."""
    vocabulary = editor.model.network.get_input_embeddings().num_embeddings
    assert all(vocabulary not in weight.shape for weight in editor.network.state_dict().values())
