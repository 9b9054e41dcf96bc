"""Prompts read once."""

from __future__ import annotations

import pytest
import torch

from serac_gateway.domain.edits import EditDraft
from training.baselines.causal_model import CausalModel
from training.baselines.prompt_cache import CachedPrompt


@pytest.mark.parametrize("prompt", ["Who", "The capital of France, as all of the world knows, is"])
@pytest.mark.parametrize("target", ["Paris", "a"])
def test_a_cached_prompt_scores_as_the_whole_text(model: CausalModel, prompt: str, target: str) -> None:
    """Probabilities are those of reading prompt and target at once, also beyond the sliding window, twice."""
    cached = CachedPrompt(model, EditDraft(prompt=prompt, target_new=target))
    (whole,) = model.target_log_probs([(prompt, target)])
    assert torch.allclose(cached.log_probs(), whole, atol=1e-4)
    assert torch.equal(cached.log_probs(), cached.log_probs())
