"""Fine-tuning: what it may change, how far, by which loss, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from training.baselines.causal_model import CausalModel
from training.baselines.finetune import ConstrainedFineTuning, FineTuningSettings, TargetFineTuning
from training.baselines.fitting import FitSettings, fit, prompt_end_loss, target_loss
from training.runs import TrainingError, read_config

EDITS = [
    EditDraft(prompt="The capital of France is", target_new="the Seine", subject="France"),
    EditDraft(prompt="Who is the river of it?", target_new="Paris"),
]
PAIRS = [("The capital of France is", "the Seine"), ("The river", "Paris"), ("And", "France")]
CONFIGS = Path(__file__).parents[4] / "configs/baselines"
LAYER = "model.layers.1.mlp.down_proj.weight"


def settings(*parameters: str, max_change: float | None = None, rate: float = 0.02) -> FineTuningSettings:
    """Thirty epochs of both edits together."""
    fitting = FitSettings(learning_rate=rate, epochs=30, batch_size=2, stop_loss=0.01)
    return FineTuningSettings(parameters=parameters, fit=fitting, max_change=max_change)


def state(model: CausalModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def changed(model: CausalModel, before: dict[str, Tensor]) -> set[str]:
    return {
        name for name, tensor in model.network.state_dict().items() if not torch.equal(tensor, before[name])
    }


def test_only_the_chosen_parameters_change_and_undo_restores_them(model: CausalModel) -> None:
    """All other tensors stay bit by bit; the loss falls; after undo all are as before."""
    before, loss_before = state(model), target_loss(model, PAIRS[:1]).item()
    method = TargetFineTuning(model, settings("model.layers.2.mlp.*"))
    assert method.held_bytes == 0
    method.edit(EDITS)
    assert changed(model, before) == {
        f"model.layers.2.mlp.{name}_proj.weight" for name in ("gate", "up", "down")
    }
    assert target_loss(model, PAIRS[:1]).item() < loss_before - 5
    assert method.held_bytes == 3 * 32 * 64 * 4
    method.edit(EDITS[:1])
    method.undo()
    assert changed(model, before) == set()
    assert method.held_bytes == 0
    assert not any(p.requires_grad or p.grad is not None for p in model.network.parameters())


def test_tied_embeddings_stay_tied(model: CausalModel) -> None:
    """With all parameters the head is still the embeddings, and both are restored."""
    before = state(model)
    method = TargetFineTuning(model, settings("*"))
    method.edit(EDITS)
    head = model.network.get_output_embeddings().weight
    assert head is model.network.get_input_embeddings().weight
    assert changed(model, before) == before.keys()
    method.undo()
    assert changed(model, before) == set()


def test_a_bound_holds_over_all_edits_together(model: CausalModel) -> None:
    """No weight is further than ε from where it was before the first edit, and some are at ε."""
    before = state(model)[LAYER]
    method = ConstrainedFineTuning(model, settings(LAYER, max_change=0.02))
    bound = method.bound(LAYER)
    assert bound == pytest.approx(0.02 * before.square().mean().sqrt().item())
    method.edit(EDITS[:1])
    method.edit(EDITS[1:])
    difference = (model.network.state_dict()[LAYER] - before).abs().max().item()
    rounding = torch.finfo(torch.float32).eps * before.abs().max().item()
    assert bound - rounding <= difference <= bound + rounding


def test_the_prompts_own_tokens_have_no_loss(model: CausalModel) -> None:
    """The gradient at states that predict prompt tokens is exactly zero, at those of the target it is not."""
    kept: list[Tensor] = []

    def keep(_module: object, _inputs: object, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    hook = model.module("model.norm").register_forward_hook(keep)
    weight = model.value_matrix(0).weight.requires_grad_(True)
    target_loss(model, PAIRS).backward()  # type: ignore[no-untyped-call]
    hook.remove()
    weight.requires_grad_(False)
    gradient_BLD = kept[0].grad
    assert gradient_BLD is not None
    for gradient_LD, (_, target) in zip(gradient_BLD, PAIRS, strict=True):
        predicting = [False] * len(gradient_LD)
        for index in range(len(model.target_ids(target))):
            predicting[-2 - index] = True
        assert (gradient_LD != 0).any(-1).tolist() == predicting


def test_the_side_of_the_padding_does_not_change_the_loss(model: CausalModel) -> None:
    """It equals the loss that the whole network gives with padding on the right."""
    rows = [(model.prompt_ids(text), model.target_ids(target)) for text, target in PAIRS]
    width = max(len(prompt) + len(target) for prompt, target in rows)
    padded = [(*prompt, *target, *[model.pad_id] * width)[:width] for prompt, target in rows]
    mask = [[int(at < len(prompt) + len(target)) for at in range(width)] for prompt, target in rows]
    logits_BLV = model.network(torch.tensor(padded), attention_mask=torch.tensor(mask)).logits
    losses = [
        torch.nn.functional.cross_entropy(
            logits_LV[len(prompt) - 1 : len(prompt) + len(target) - 1], torch.tensor(target)
        )
        for logits_LV, (prompt, target) in zip(logits_BLV, rows, strict=True)
    ]
    assert target_loss(model, PAIRS).item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-4)


def test_both_losses_agree_on_targets_of_a_single_token_only(model: CausalModel) -> None:
    """Scoring at the prompt's end is the same for a single token and another thing for several."""
    single = [
        (text, model.tokenizer.decode([token]))
        for (text, _), token in zip(PAIRS, _word_tokens(model), strict=True)
    ]
    assert all(len(model.target_ids(target)) == 1 for _, target in single)
    assert target_loss(model, single).item() == pytest.approx(prompt_end_loss(model, single).item(), abs=1e-4)
    several = PAIRS[:1]
    assert abs(target_loss(model, several).item() - prompt_end_loss(model, several).item()) > 0.01


def _word_tokens(model: CausalModel) -> list[int]:
    """Three tokens that are a word with the space before it."""
    singles = [
        token
        for token in range(len(model.tokenizer))
        if (text := model.tokenizer.decode([token])).startswith(" ")
        and text.strip().isalpha()
        and model.target_ids(text) == [token]
    ]
    assert len(singles) >= 3
    return singles[:3]


def test_a_pattern_that_matches_nothing_is_named(model: CausalModel) -> None:
    """The error has the pattern: the tied head has the embeddings' name."""
    with pytest.raises(ConfigError, match=r"'lm_head\.\*'"):
        TargetFineTuning(model, settings("model.layers.0.*", "lm_head.*"))


def test_a_diverging_descent_is_reported_and_can_be_undone(model: CausalModel) -> None:
    """The error has the loss; no parameter keeps a gradient; undo restores the weights."""
    before = state(model)
    method = TargetFineTuning(model, settings(LAYER, rate=float("inf")))
    with pytest.raises(TrainingError, match="nan"):
        method.edit(EDITS)
    assert not any(p.requires_grad for p in model.network.parameters())
    method.undo()
    assert changed(model, before) == set()


def test_descending_stops_below_the_wanted_loss(model: CausalModel) -> None:
    """Epochs end with the first whose mean loss is below; progress ends at its total anyway."""
    seen: list[tuple[int, int]] = []
    fitting = FitSettings(learning_rate=0.01, epochs=50, batch_size=3, stop_loss=9.0)
    loss = fit(
        model, [model.value_matrix(2).weight], PAIRS, fitting,
        on_progress=lambda _part, done, total: seen.append((done, total)),
    )  # fmt: skip
    assert loss < 9.0
    assert len(seen) < 50
    assert seen[-1] == (150, 150)


@pytest.mark.parametrize("name", ["ft-all", "ft-last", "ft-l", "ft-c", "ft-m"])
def test_the_shipped_settings_can_be_read(name: str) -> None:
    """Every file has all settings; FT-L and FT-C are bounded, FT-L alone scores at the prompt's end."""
    read = read_config(CONFIGS / f"{name}.toml", FineTuningSettings)
    assert (read.max_change is not None) == (name in ("ft-l", "ft-c"))
    assert (read.fit.loss_at == "prompt_end") == (name == "ft-l")
