"""A tiny Gemma for the editing methods."""

from __future__ import annotations

import pytest

from tests.tiny_language_models import tiny_gemma, tiny_tokenizer
from training.baselines.causal_model import CausalModel


@pytest.fixture
def model() -> CausalModel:
    """Three layers of width 32, inner width 64, random weights."""
    tokenizer = tiny_tokenizer()
    return CausalModel(tiny_gemma(tokenizer), tokenizer, name="tiny-gemma")
