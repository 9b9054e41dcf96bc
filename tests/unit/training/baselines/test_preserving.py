"""What fine-tuning has to leave as it is: how far the model is from what it was, and that it stays nearer."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
import torch

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from training.baselines.causal_model import CausalModel
from training.baselines.finetune import FineTuningSettings, TargetFineTuning
from training.baselines.fitting import FitSettings
from training.baselines.preserving import Preserved, PreserveSettings, about_others, preserving

EDITS = [
    EditDraft(prompt="The capital of France is", target_new="the Seine", subject="France"),
    EditDraft(prompt="Who is the river of it?", target_new="Paris"),
]
OTHERS = ("Paris", "the Seine", "It")


@pytest.fixture
def settings(tmp_path: Path) -> PreserveSettings:
    texts = tmp_path / "texts.txt"
    texts.write_text("The river of France is the Seine\nParis is the capital\nword\n", "utf-8")
    return PreserveSettings(weight=5.0, other_subjects=OTHERS, texts=str(texts), batch_size=64, likeliest=8)


def move(model: CausalModel, share: float = 0.5) -> None:
    with torch.no_grad():
        weight = model.network.get_parameter("model.layers.1.mlp.down_proj.weight")
        weight += share * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))


def test_a_model_that_did_not_change_is_at_no_distance_and_one_that_did_is(
    model: CausalModel, settings: PreserveSettings
) -> None:
    """Zero nats before, more after, and λ times that as the loss."""
    preserved = Preserved(model, EDITS, settings)
    assert preserved.divergence().item() == pytest.approx(0, abs=1e-5)
    move(model)
    divergence = preserved.divergence().item()
    assert divergence > 0.001
    assert preserved.loss().item() == pytest.approx(5 * divergence)


def test_the_divergence_is_that_over_the_vocabulary_and_never_more_with_fewer_tokens(
    model: CausalModel, settings: PreserveSettings
) -> None:
    """With nearly all tokens kept it is the KL, computed here from both models' distributions."""
    vocabulary = model.network.config.vocab_size
    texts = Path(str(settings.texts))
    texts.write_text("The capital\nParis is\n", "utf-8")  # of two words the second is held
    whole = Preserved(model, [], msgspec.structs.replace(settings, likeliest=vocabulary - 1))
    few = Preserved(model, [], msgspec.structs.replace(settings, likeliest=2))
    pairs = [("The", "capital"), ("Paris", "is")]

    def log_probs() -> torch.Tensor:
        return torch.cat([torch.log_softmax(logits, -1) for logits in model.target_logits(pairs)]).detach()

    before = log_probs()
    move(model)
    expected = (before.exp() * (before - log_probs())).sum(-1).mean().item()
    assert whole.divergence().item() == pytest.approx(expected, rel=1e-3)
    assert 0 < few.divergence().item() < expected


def test_fine_tuning_that_preserves_ends_nearer_to_the_model(
    model: CausalModel, settings: PreserveSettings
) -> None:
    """The targets are learnt either way, and everything is put back bit by bit."""
    fit = FitSettings(learning_rate=0.02, epochs=20, batch_size=2, stop_loss=0.0)
    plain = FineTuningSettings(parameters=("model.layers.2.mlp.*",), fit=fit)
    preserved, fingerprint = Preserved(model, EDITS, settings), model.fingerprint()
    distances, losses = [], [-model.target_log_probs([(EDITS[0].prompt, "the Seine")])[0].mean().item()]
    for chosen in (plain, msgspec.structs.replace(plain, preserve=settings)):
        method = TargetFineTuning(model, chosen)
        method.edit(EDITS)
        distances.append(preserved.divergence().item())
        losses.append(-model.target_log_probs([(EDITS[0].prompt, "the Seine")])[0].mean().item())
        method.undo()
        assert model.fingerprint() == fingerprint
    assert distances[1] < distances[0] / 2
    assert max(losses[1:]) < losses[0] - 3


def test_prompts_about_others_are_those_of_edits_with_a_subject_in_their_prompt(
    settings: PreserveSettings,
) -> None:
    """Never an edit's own prompt, and none for an edit without a subject."""
    rng = random.Random(0)
    assert set(about_others(EDITS, settings, rng)) < {f"The capital of {other} is" for other in OTHERS}
    assert about_others(EDITS[1:], settings, rng) == []
    own = EditDraft(prompt="The capital of Paris is", target_new="x", subject="Paris")
    many = msgspec.structs.replace(settings, others_per_edit=9)
    assert sorted(about_others([*EDITS, own], many, rng)) == sorted(
        2 * ["The capital of It is", "The capital of the Seine is"]
    )


def test_without_settings_there_is_no_loss_and_without_text_an_error(
    model: CausalModel, settings: PreserveSettings, tmp_path: Path
) -> None:
    """The error names the file."""
    assert preserving(model, EDITS, None) is None
    missing = msgspec.structs.replace(settings, texts=str(tmp_path / "none.txt"))
    with pytest.raises(ConfigError, match=r"none\.txt"):
        preserving(model, EDITS, missing)
