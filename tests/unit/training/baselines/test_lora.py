"""LoRA: without effect at first, merged as unmerged, gone without a trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from training.baselines.causal_model import CausalModel
from training.baselines.fitting import FitSettings, target_loss
from training.baselines.lora import LoraEditing, LoraSettings
from training.runs import read_config

CONFIGS = Path(__file__).parents[4] / "configs/baselines"
EDITS = [
    EditDraft(prompt="The capital of France is", target_new="the Seine"),
    EditDraft(prompt="Who is the river of it?", target_new="Paris"),
]
PAIRS = [("The capital of France is", "the Seine")]
FIT = FitSettings(learning_rate=0.05, epochs=15, batch_size=2, stop_loss=0.01)


def settings(modules: Sequence[str] = ("q_proj", "down_proj"), *, merged: bool = False) -> LoraSettings:
    return LoraSettings(modules=tuple(modules), rank=4, alpha=8, merged=merged, fit=FIT)


def logits(model: CausalModel) -> Tensor:
    out: Tensor = model.network(torch.tensor([model.prompt_ids("The river of France is")])).logits
    return out


def tensors(model: CausalModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def assert_as_before(model: CausalModel, before: dict[str, Tensor]) -> None:
    now = tensors(model)
    assert now.keys() == before.keys()
    assert all(torch.equal(now[name], before[name]) for name in before)


def test_fresh_adapters_change_no_bit_of_the_logits(model: CausalModel) -> None:
    """B is zero, so the product that is added is zero."""
    before = logits(model)
    method = LoraEditing(model, settings())
    method.attach()
    assert method.held_bytes > 0
    assert torch.equal(logits(model), before)


def test_edits_are_learnt_by_the_adapters_alone(model: CausalModel) -> None:
    """The loss falls, matrices beside the adapters stay; undo leaves modules, tensors, logits as before."""
    before, logits_before, loss_before = tensors(model), logits(model), target_loss(model, PAIRS).item()
    modules = [type(module) for module in model.network.modules()]
    method = LoraEditing(model, settings())
    method.edit(EDITS)
    assert target_loss(model, PAIRS).item() < loss_before - 2
    weight = model.network.state_dict()["model.layers.1.mlp.down_proj.base_layer.weight"]
    assert torch.equal(weight, before["model.layers.1.mlp.down_proj.weight"])
    learnt = target_loss(model, PAIRS).item()
    method.edit(EDITS[:1])
    assert target_loss(model, PAIRS).item() < learnt
    method.undo()
    assert_as_before(model, before)
    assert torch.equal(logits(model), logits_before)
    assert [type(module) for module in model.network.modules()] == modules
    assert not any(p.requires_grad for p in model.network.parameters())
    assert method.held_bytes == 0


def test_merged_is_as_unmerged_and_unmerging_restores(model: CausalModel) -> None:
    """Merged logits differ by rounding only; unmerging puts the matrices and the logits back bit by bit."""
    base = logits(model)
    method = LoraEditing(model, settings())
    method.edit(EDITS)
    apart, before = logits(model), tensors(model)
    assert not torch.allclose(apart, base, atol=0.1)
    method.merge()
    assert not torch.equal(
        model.network.state_dict()["model.layers.1.mlp.down_proj.base_layer.weight"],
        before["model.layers.1.mlp.down_proj.base_layer.weight"],
    )
    torch.testing.assert_close(logits(model), apart, atol=1e-3, rtol=1e-3)
    method.unmerge()
    assert_as_before(model, before)
    assert torch.equal(logits(model), apart)


def test_edits_merged_at_once_can_be_followed_by_others_and_undone(model: CausalModel) -> None:
    """A second call goes on from the adapters, not from merged matrices."""
    before = tensors(model)
    merged = LoraEditing(model, settings(merged=True))
    merged.edit(EDITS[:1])
    merged.edit(EDITS[1:])
    merged_logits = logits(model)
    merged.undo()
    assert_as_before(model, before)
    apart = LoraEditing(model, settings())
    apart.edit(EDITS[:1])
    apart.edit(EDITS[1:])
    torch.testing.assert_close(logits(model), merged_logits, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("module", ["embed_tokens", "lm_head"])
def test_tied_tensors_are_refused(model: CausalModel, module: str) -> None:
    """Neither name of the tensor that embeddings and head share can have an adapter."""
    with pytest.raises(ConfigError, match=module):
        LoraEditing(model, settings(["q_proj", module]))


def test_unknown_modules_are_named(model: CausalModel) -> None:
    """The error has the names, and the model stays as it was."""
    before = tensors(model)
    with pytest.raises(ConfigError, match="c_attn"):
        LoraEditing(model, settings(["c_attn"])).edit(EDITS)
    assert_as_before(model, before)


def test_the_shipped_settings_can_be_read() -> None:
    """They name no tied tensor."""
    read = read_config(CONFIGS / "lora.toml", LoraSettings)
    assert not {"embed_tokens", "lm_head"} & set(read.modules)
