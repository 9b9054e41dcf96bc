"""MEND: what its untrained network is, and what a change is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from tests.unit.training.baselines.states import PARIS, RIVER, parameters, states
from training.baselines.causal_model import CausalModel
from training.baselines.mend import Mend, MendSettings, RunningNorm
from training.baselines.target_gradients import target_gradients

EDIT = EditDraft(prompt=PARIS, target_new="Seine")
SECOND = EditDraft(prompt=RIVER, target_new="France")
RATE = 0.01
PLAIN = MendSettings(layers=(1, 2), normalised=False, edit_rate=RATE, rank=4)


@pytest.fixture
def mend(model: CausalModel) -> Mend:
    """As it begins, without norms."""
    return Mend(model, PLAIN, trained=False)


def _gradients(model: CausalModel, *edits: EditDraft) -> dict[str, torch.Tensor]:
    """By autograd on the weights themselves, summed over the edits."""
    paths = [f"model.layers.{layer}.mlp.{matrix}" for layer in (1, 2) for matrix in ("up_proj", "down_proj")]
    weights = [model.module(path).weight.requires_grad_() for path in paths]
    loss = sum(-model.target_log_probs([(edit.prompt, edit.target_new)])[0].mean() for edit in edits)
    gradients = torch.autograd.grad(loss, weights)
    for weight in weights:
        weight.requires_grad_(False)
    return dict(zip(paths, gradients, strict=True))


def test_outer_products_sum_to_the_gradient(model: CausalModel, mend: Mend) -> None:
    """Inputs and output gradients of all tokens reproduce autograd's gradient of each weight."""
    products = target_gradients(model, EDIT, mend.linears)
    for path, gradient in _gradients(model, EDIT).items():
        assert torch.allclose(products[path].summed(), gradient, atol=1e-5)


def test_untrained_it_is_gradient_descent(model: CausalModel, mend: Mend) -> None:
    """Without norms ΔW = -lr ∇L, so that the edit becomes likelier; two edits are one step of their sum."""
    before = {path: linear.weight.clone() for path, linear in mend.linears.items()}
    (unedited,) = model.target_log_probs([(EDIT.prompt, EDIT.target_new)])
    gradients = _gradients(model, EDIT, SECOND)
    mend.edit([EDIT, SECOND])
    for path, gradient in gradients.items():
        change = mend.linears[path].weight - before[path]
        assert torch.allclose(change, -RATE * gradient, atol=1e-6)
    (edited,) = model.target_log_probs([(EDIT.prompt, EDIT.target_new)])
    assert edited.mean() > unedited.mean()


def test_a_change_has_no_more_ranks_than_the_edit_has_tokens(model: CausalModel, mend: Mend) -> None:
    """Also where the network is no identity."""
    torch.manual_seed(3)
    for name, parameter in mend.network.named_parameters():
        if "scale" in name or "offset" in name:
            parameter.data.normal_()
    changes = mend.network.changes(EDIT, target_gradients(model, EDIT, mend.linears))
    tokens = len(model.prompt_ids(PARIS)) + len(model.target_ids("Seine")) - 1
    for path, change in changes.items():
        assert change.shape == mend.linears[path].weight.shape
        assert 0 < torch.linalg.matrix_rank(change.detach()) <= tokens < min(change.shape)


def test_undo_restores_bit_by_bit(model: CausalModel, mend: Mend) -> None:
    """No edit, and edits undone, are the base model: states, parameters and hooks."""
    before, weights, hooked = states(model, PARIS), parameters(model), model.hook_count()
    mend.edit([])
    assert torch.equal(states(model, PARIS), before)
    mend.edit([EDIT])
    mend.edit([SECOND])
    assert not torch.equal(states(model, PARIS), before)
    assert mend.held_bytes == 4 * 32 * 64 * 4
    mend.undo()
    assert torch.equal(states(model, PARIS), before)
    assert all(map(torch.equal, parameters(model), weights))
    assert (model.hook_count(), mend.held_bytes) == (hooked, 0)


def test_observed_vectors_are_normalised() -> None:
    """To mean 0 and deviation 1 in each coordinate; before any, nothing is changed; zeros do not count."""
    norm = RunningNorm(3)
    vectors = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([1, 10, 0.1]) + 4
    assert torch.equal(norm(vectors), vectors)
    norm.observe(torch.cat([vectors[:20], torch.zeros(5, 3), vectors[20:]]))
    normalised = norm(vectors)
    assert torch.allclose(normalised.mean(0), torch.zeros(3), atol=1e-4)
    assert torch.allclose(normalised.std(0), torch.ones(3), atol=1e-4)


def test_without_a_trained_network_it_says_how_to_train_it(model: CausalModel, tmp_path: Path) -> None:
    """The error names the file and the command."""
    settings = MendSettings(layers=(2,), run=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"none/hyper.safetensors.*serac-train baseline mend"):
        Mend(model, settings).edit([EDIT])
