"""Steering: which states are shifted, by what, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from training.baselines.causal_model import CausalModel
from training.baselines.steering import RepresentationEngineering, Steering, SteeringSettings
from training.runs import read_config

CONFIGS = Path(__file__).parents[4] / "configs/baselines"
EDITS = [
    EditDraft(prompt="The capital of France is", target_new="the Seine", target_true="Paris"),
    EditDraft(prompt="Who is the river of it?", target_new="Paris", target_true="the river"),
    EditDraft(prompt="And the capital is", target_new="Paris"),
]
TEXTS = ["The capital of France is", "Who?", "The river, as everybody knows, is"]


def settings(
    coefficient: float = 1.5, vector: Literal["mean_difference", "principal_component"] = "mean_difference"
) -> SteeringSettings:
    return SteeringSettings(layer=1, coefficient=coefficient, vector=vector, batch_size=2)


def layer_outputs(model: CausalModel, texts: list[str]) -> tuple[Tensor, Tensor]:
    """The steered layer's outputs for a padded batch, and which of them are shifted."""
    kept: list[Tensor] = []
    hook = model.layers[1].register_forward_hook(lambda _layer, _inputs, output: kept.append(output))
    batch = model.batch([model.prompt_ids(text) for text in texts])
    model.hidden(batch)
    hook.remove()
    return kept[0], (batch.mask_BL == 1) & (batch.mask_BL.cumsum(1) > 1)


def test_every_token_but_the_first_is_shifted_by_c_v_exactly(model: CausalModel) -> None:
    """Padding and the first token of each text keep every bit; undo gives all of them back."""
    before_BLD, is_shifted_BL = layer_outputs(model, TEXTS)
    method = Steering(model, settings())
    method.edit(EDITS)
    after_BLD, _ = layer_outputs(model, TEXTS)
    assert torch.equal(after_BLD[is_shifted_BL], before_BLD[is_shifted_BL] + 1.5 * method.vector())
    assert torch.equal(after_BLD[~is_shifted_BL], before_BLD[~is_shifted_BL])
    assert 0 < is_shifted_BL.sum() < is_shifted_BL.numel() - len(TEXTS)
    method.undo()
    assert torch.equal(layer_outputs(model, TEXTS)[0], before_BLD)
    assert method.held_bytes == 0
    assert not any(module._forward_hooks for module in model.network.modules())


def test_a_coefficient_of_zero_changes_no_bit(model: CausalModel) -> None:
    """The whole network's logits are as before."""
    ids = torch.tensor([model.prompt_ids(TEXTS[0])])
    before = model.network(ids).logits
    Steering(model, settings(coefficient=0.0)).edit(EDITS)
    assert torch.equal(model.network(ids).logits, before)


def test_cached_tokens_are_shifted_as_those_of_a_whole_text(model: CausalModel) -> None:
    """Generation gives the tokens that reading the text anew at every step gives."""
    method = Steering(model, settings(coefficient=3.0))
    unsteered = model.greedy(TEXTS[:1], max_tokens=6)
    method.edit(EDITS)
    ids = model.prompt_ids(TEXTS[0])
    for _ in range(6):
        ids.append(int(model.logits(model.hidden(model.batch([ids])))[0, -1].argmax()))
    whole = model.tokenizer.decode(ids[-6:], skip_special_tokens=True).strip().split("\n")[0].strip()
    steered = model.greedy(TEXTS[:1], max_tokens=6)
    assert steered == [whole]
    assert steered != unsteered


def test_the_vector_is_the_mean_of_the_differences(model: CausalModel) -> None:
    """Of new and old answers after their prompts, also over several calls."""
    method = Steering(model, settings())
    new = method.states(
        [("The capital of France is", "the Seine"), ("Question: Who is the river of it?\nAnswer:", "Paris")]
    )
    old = method.states(
        [("The capital of France is", "Paris"), ("Question: Who is the river of it?\nAnswer:", "the river")]
    )
    method.edit(EDITS[:1])
    assert method.held_bytes == 32 * 4
    method.edit(EDITS[1:2])
    torch.testing.assert_close(method.vector(), (new - old).mean(0), atol=1e-4, rtol=1e-4)


def test_an_unstated_old_answer_is_what_the_model_says(model: CausalModel) -> None:
    """Unsteered, even where earlier edits steer."""
    said = model.greedy([EDITS[2].prompt])[0]
    stated = EditDraft(prompt=EDITS[2].prompt, target_new="Paris", target_true=said)
    vectors = []
    for edit in (EDITS[2], stated):
        method = Steering(model, settings(coefficient=5.0))
        method.edit(EDITS[:1])
        method.edit([edit])
        vectors.append(method.vector())
        method.undo()
    torch.testing.assert_close(vectors[0], vectors[1])


def test_the_principal_component_is_that_of_the_differences(model: CausalModel) -> None:
    """Its direction is the eigenvector of the largest eigenvalue, on the mean's side; of one edit, itself."""
    method = RepresentationEngineering(model, settings(vector="principal_component"))
    method.edit(EDITS[:1])
    single = Steering(model, settings())
    pair = [(EDITS[0].prompt, answer) for answer in ("the Seine", "Paris")]
    method.undo()
    new, old = single.states(pair)
    method.edit(EDITS[:1])
    torch.testing.assert_close(method.vector(), new - old, atol=1e-4, rtol=1e-4)
    method.edit(EDITS[1:2])
    assert method._differences_ND is not None
    differences = method._differences_ND
    largest = torch.linalg.eigh(differences.T @ differences).eigenvectors[:, -1]
    cosine = torch.cosine_similarity(method.vector(), largest, dim=0).abs().item()
    assert cosine == pytest.approx(1, abs=1e-4)
    assert method.vector().dot(differences.mean(0)) >= 0


def test_a_missing_layer_is_named(model: CausalModel) -> None:
    """At construction."""
    with pytest.raises(ConfigError, match=r"model\.layers\.9"):
        Steering(model, SteeringSettings(layer=9, coefficient=1, vector="mean_difference", batch_size=2))


@pytest.mark.parametrize("name", ["steering", "representation"])
def test_the_shipped_settings_can_be_read(name: str) -> None:
    """They differ in how the vector is made."""
    read = read_config(CONFIGS / f"{name}.toml", SteeringSettings)
    assert (read.vector == "principal_component") == (name == "representation")
