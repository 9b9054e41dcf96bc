"""Contrastive gradients: how many weights change, in which direction, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from serac_gateway.domain.edits import EditDraft
from training.baselines.causal_model import CausalModel
from training.baselines.contrastive import ContrastiveGradient, ContrastiveSettings
from training.baselines.fitting import pairs_of, target_loss
from training.runs import TrainingError, read_config

CONFIGS = Path(__file__).parents[4] / "configs/baselines"
EDITS = [
    EditDraft(prompt="The capital of France is", target_new="the Seine", subject="France"),
    EditDraft(prompt="Who is the river of Paris?", target_new="Seine", subject="Paris"),
]
PATTERN = "model.layers.[12].mlp.down_proj.weight"
WEIGHTS = 2 * 32 * 64


def settings(*, share: float = 0.05, beta: float | None = None, epochs: int = 20) -> ContrastiveSettings:
    return ContrastiveSettings(
        parameters=(PATTERN,), kept_share=share, beta=beta, other_subjects=("Rome", "a tree", "Kant"),
        others_per_edit=2, step=0.1, epochs=epochs, batch_size=2, stop_loss=0.01,
    )  # fmt: skip


def weights(model: CausalModel) -> Tensor:
    return torch.cat([model.value_matrix(layer).weight.flatten() for layer in (1, 2)]).clone()


@pytest.mark.parametrize("beta", [None, 0.0, 0.5])
def test_the_kept_share_of_the_weights_changes_and_undo_restores_it(
    model: CausalModel, beta: float | None
) -> None:
    """⌊ρ n⌋ weights differ after a call and no other tensor does; the loss falls; two calls are undone."""
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    at_first, loss_before = weights(model), target_loss(model, pairs_of(model, EDITS)).item()
    method = ContrastiveGradient(model, settings(beta=beta))
    method.edit(EDITS)
    changed = weights(model) != at_first
    assert changed.sum().item() == int(0.05 * WEIGHTS)
    assert target_loss(model, pairs_of(model, EDITS)).item() < loss_before - 1
    assert method.held_bytes == int(0.05 * WEIGHTS) * (8 + 4)
    method.edit(EDITS[:1])
    method.undo()
    now = model.network.state_dict()
    assert all(torch.equal(now[name], before[name]) for name in before)
    assert method.held_bytes == 0
    assert not any(p.requires_grad for p in model.network.parameters())


def test_a_projected_step_leaves_the_local_loss_to_first_order(model: CausalModel) -> None:
    """Its product with the local gradient is zero up to rounding; without projection it is not."""
    cosines: dict[float | None, float] = {}
    for beta in (None, 0.0):
        method = ContrastiveGradient(model, settings(beta=beta, epochs=1))
        local = [pair for of_edit in method.local_pairs(EDITS) for pair in of_edit]
        _, local_N = method.gradient(local)
        before = weights(model)
        method.edit(EDITS)
        step_N = weights(model) - before
        method.undo()
        cosines[beta] = abs((step_N.dot(local_N) / step_N.norm() / local_N.norm()).item())
    projected, plain = cosines[None], cosines[0.0]
    assert projected < 1e-4
    assert plain > 100 * projected


def test_the_weights_with_the_largest_contrast_are_chosen(model: CausalModel) -> None:
    """Those that change are the first of |∇L_edit - β ∇L_local|."""
    method = ContrastiveGradient(model, settings(beta=0.5, epochs=1))
    _, edit_N = method.gradient(pairs_of(model, EDITS))
    _, local_N = method.gradient([pair for of_edit in method.local_pairs(EDITS) for pair in of_edit])
    largest = (edit_N - 0.5 * local_N).abs().topk(int(0.05 * WEIGHTS)).indices
    before = weights(model)
    method.edit(EDITS)
    assert torch.equal((weights(model) != before).nonzero()[:, 0], largest.sort().values)


def test_local_prompts_ask_the_same_of_others(model: CausalModel) -> None:
    """They are the edit's prompt, as the model reads it, with other subjects, before the edit's target."""
    method = ContrastiveGradient(model, settings())
    _, questions = method.local_pairs(EDITS)
    assert len(questions) == 2
    for text, target in questions:
        assert text in {
            model.prompt_text(f"Who is the river of {other}?") for other in ("Rome", "a tree", "Kant")
        }
        assert target == "Seine"


def test_an_edit_without_its_subject_is_named_before_anything_changes(model: CausalModel) -> None:
    """The error has the prompt; the edits before it in the call are not made either."""
    before = weights(model)
    method = ContrastiveGradient(model, settings())
    with pytest.raises(TrainingError, match="'Who is it'"):
        method.edit([*EDITS, EditDraft(prompt="Who is it", target_new="Paris", subject="Rome")])
    assert torch.equal(weights(model), before)
    assert method.held_bytes == 0


def test_the_shipped_settings_change_fewer_than_a_thousandth_of_the_weights() -> None:
    """The share is of the chosen matrices, so of the whole model it is smaller still."""
    assert (
        read_config(CONFIGS / "contrastive.toml", ContrastiveSettings).kept_share * 10 * 640 * 2048
        < 268e6 / 1000
    )
