"""A tiny Gemma for the editing methods."""

from __future__ import annotations

import pytest
import torch

from tests.tiny_language_models import tiny_gemma, tiny_tokenizer
from training.baselines.causal_model import CausalModel


@pytest.fixture
def model() -> CausalModel:
    """Three layers of width 32, inner width 64, random weights."""
    tokenizer = tiny_tokenizer()
    return CausalModel(tiny_gemma(tokenizer), tokenizer, name="tiny-gemma")


@pytest.fixture
def editable(model: CausalModel) -> CausalModel:
    """The same with large, unequal gains behind the MLP, like trained ones; else the MLP hardly counts."""
    generator = torch.Generator().manual_seed(0)
    for layer in model.layers:
        gains = layer.get_parameter("post_feedforward_layernorm.weight")
        gains.data.copy_(5 + 3 * torch.randn(gains.shape, generator=generator))
    return model
