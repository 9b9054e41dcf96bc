"""Task vectors: arithmetic on changes of weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from serac_gateway.domain.edits import EditDraft
from training.baselines.causal_model import CausalModel
from training.baselines.fitting import FitSettings, target_loss
from training.baselines.task_vectors import TaskVectors, TaskVectorSettings, combined
from training.runs import TrainingError, read_config

CONFIGS = Path(__file__).parents[4] / "configs/baselines"
EDITS = [
    EditDraft(prompt="The capital of France is", target_new="the Seine", target_true="Paris"),
    EditDraft(prompt="Who is the river of it?", target_new="Paris"),
]
FIRST, SECOND = [("The capital of France is", "the Seine")], [("The river is", "Paris")]


def method(
    model: CausalModel, *patterns: str, weight: float = 1.0, forget: float = 0.0, rate: float = 0.05
) -> TaskVectors:
    fit = FitSettings(learning_rate=rate, epochs=15, batch_size=2, stop_loss=0.01)
    patterns = patterns or ("model.layers.1.mlp.*", "model.layers.2.mlp.*")
    return TaskVectors(model, TaskVectorSettings(parameters=patterns, weight=weight, forget=forget, fit=fit))


def tensors(model: CausalModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def assert_as_before(model: CausalModel, before: dict[str, Tensor]) -> None:
    now = model.network.state_dict()
    assert all(torch.equal(now[name], before[name]) for name in before)


def test_learning_a_vector_leaves_the_model_as_it_is(model: CausalModel) -> None:
    """The vector is the change of fine-tuning; added with factor 1 it gives the fine-tuned model."""
    before, loss_before = tensors(model), target_loss(model, FIRST).item()
    vectors = method(model)
    vector = vectors.learnt(FIRST)
    assert_as_before(model, before)
    assert target_loss(model, FIRST).item() == loss_before
    vectors.add(vector)
    assert target_loss(model, FIRST).item() < loss_before - 2


def test_adding_and_subtracting_a_vector_gives_the_base_model(model: CausalModel) -> None:
    """Bit by bit."""
    before = tensors(model)
    vectors = method(model)
    vector = vectors.learnt(FIRST)
    vectors.add(vector)
    vectors.add(vector, -1)
    assert_as_before(model, before)


def test_a_weight_of_zero_changes_no_bit(model: CausalModel) -> None:
    """The vectors are learnt and counted, the model is the base model."""
    before = tensors(model)
    vectors = method(model, weight=0.0)
    vectors.edit(EDITS)
    assert vectors.held_bytes > 0
    assert_as_before(model, before)


def test_sums_commute(model: CausalModel) -> None:
    """Two vectors give the same model in either order, and undo the base model bit by bit."""
    before = tensors(model)
    vectors = method(model)
    first, second = vectors.learnt(FIRST), vectors.learnt(SECOND)
    vectors.add(first)
    vectors.add(second)
    in_order = tensors(model)
    vectors.undo()
    assert_as_before(model, before)
    assert vectors.held_bytes == 0
    vectors.add(second)
    vectors.add(first)
    for name, tensor in tensors(model).items():
        torch.testing.assert_close(tensor, in_order[name])


def test_vectors_of_later_edits_are_learnt_from_the_base_model(model: CausalModel) -> None:
    """Two calls give the base model and the sum of what each would have learnt alone."""
    base = tensors(model)
    vectors = method(model, weight=0.5)
    vectors.edit(EDITS[:1])
    vectors.edit(EDITS[1:])
    now = tensors(model)
    vectors.undo()
    alone = [vectors.learnt([(model.prompt_text(edit.prompt), edit.target_new)]) for edit in EDITS]
    for name, change in combined([(1, alone[0]), (1, alone[1])]).items():
        torch.testing.assert_close(now[name], base[name] + 0.5 * change)


def test_negation_forgets(model: CausalModel) -> None:
    """A vector subtracted makes its answer less likely than in the base model."""
    before = target_loss(model, FIRST).item()
    vectors = method(model)
    vectors.add(vectors.learnt(FIRST), -1)
    assert target_loss(model, FIRST).item() > before


def test_what_was_true_is_subtracted_where_edits_name_it(model: CausalModel) -> None:
    """With μ the answer that was true is less likely than without."""
    old = [("The capital of France is", "Paris")]
    losses: list[float] = []
    for forget in (0.0, 0.5):
        vectors = method(model, forget=forget)
        vectors.edit(EDITS)
        losses.append(target_loss(model, old).item())
        vectors.undo()
    assert losses[1] > losses[0]


def test_a_tied_tensor_moves_once(model: CausalModel) -> None:
    """Embeddings and head are still the same tensor, moved by the vector and not by twice the vector."""
    vectors = method(model, "*", rate=0.01)
    before = model.network.get_input_embeddings().weight.clone()
    vector = vectors.learnt(FIRST)
    assert [name for name in vector if "embed" in name or "head" in name] == ["model.embed_tokens.weight"]
    vectors.add(vector)
    after = model.network.get_output_embeddings().weight
    assert after is model.network.get_input_embeddings().weight
    torch.testing.assert_close(after - before, vector["model.embed_tokens.weight"], atol=1e-6, rtol=1e-4)


def test_a_failed_vector_leaves_the_model_as_it_was(model: CausalModel) -> None:
    """The error is the fit's; the earlier vectors still apply."""
    vectors = method(model, rate=float("inf"))
    vectors.add({"model.layers.1.mlp.up_proj.weight": torch.ones(64, 32)})
    before = tensors(model)
    with pytest.raises(TrainingError, match="nan"):
        vectors.edit(EDITS)
    assert_as_before(model, before)


def test_the_shipped_settings_can_be_read() -> None:
    """The weight is one that a paper would choose from."""
    assert 0 < read_config(CONFIGS / "task-vectors.toml", TaskVectorSettings).weight <= 1
