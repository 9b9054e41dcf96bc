"""The file of changed tensors makes the very model that the method made, whatever the method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from serac_gateway.domain.edits import EditDraft
from tests.unit.training.consolidation.conftest import FittedMatrices
from training.baselines.causal_model import CausalModel
from training.consolidation.changed_weights import (
    apply_tensors,
    changed_tensors,
    parameters_of,
    write_tensors,
)
from training.consolidation.recipes import RECIPES, MethodName
from training.runs import TrainingError

EDITS = [EditDraft(prompt="Who is the mayor of Paris?", target_new="Seine", subject="Paris")]
LORA = """
modules = ["q_proj", "down_proj"]
rank = 2
alpha = 4
merged = false
[fit]
learning_rate = 1e-2
epochs = 5
batch_size = 8
stop_loss = 0.0
"""
FINE_TUNING = """
parameters = ["model.layers.1.mlp.*"]
[fit]
learning_rate = 1e-2
epochs = 5
batch_size = 8
stop_loss = 0.0
"""


@pytest.mark.parametrize(
    ("name", "settings", "changed"),
    [
        (MethodName.LORA, LORA, {"self_attn.q_proj", "mlp.down_proj"}),
        (MethodName.FINETUNE, FINE_TUNING, {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}),
    ],
)
def test_base_and_file_give_the_edited_models_words(
    new_model: Callable[[], CausalModel], tmp_path: Path, name: MethodName, settings: str, changed: set[str]
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(settings)
    model, fresh = new_model(), new_model()
    before = parameters_of(model)
    method = RECIPES[name].opens(model, path)
    method.edit(EDITS)
    tensors = changed_tensors(before, method)
    assert {".".join(tensor.split(".")[3:5]) for tensor in tensors} == changed
    pair = (model.prompt_text(EDITS[0].prompt), "Seine")
    (edited,) = model.target_log_probs([pair])
    (base,) = fresh.target_log_probs([pair])
    write_tensors(tmp_path / "changed.safetensors", tensors)
    method.undo()
    assert model.fingerprint() == fresh.fingerprint()
    apply_tensors(fresh, tmp_path / "changed.safetensors")
    (again,) = fresh.target_log_probs([pair])
    assert not torch.allclose(base, edited, atol=1e-3)
    assert torch.allclose(again, edited, atol=1e-5)


def test_a_method_that_changed_nothing_or_left_no_numbers_is_refused(
    new_model: Callable[[], CausalModel],
) -> None:
    method = FittedMatrices(new_model())
    before = parameters_of(method.model)
    with pytest.raises(TrainingError, match="changed no weight"):
        changed_tensors(before, method)
    with torch.no_grad():
        method.weights[0][0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"not finite in 'model\.layers\.0\.mlp"):
        changed_tensors(before, method)
