"""The model as editing methods see it."""

from __future__ import annotations

import pytest
import torch

from serac_gateway.errors import ConfigError
from training.baselines.causal_model import CausalModel
from training.runs import TrainingError

TEXTS = ["The capital of France is", "Who?", "The river, as everybody knows, is"]


def test_padding_changes_no_text(model: CausalModel) -> None:
    """Texts are continued alike alone and in a batch with longer ones."""
    together = model.greedy(TEXTS, max_tokens=6)
    assert together == [model.greedy([text], max_tokens=6)[0] for text in TEXTS]
    assert any(together)


def test_padding_changes_no_probability(model: CausalModel) -> None:
    """A target has the same log-probabilities alone and beside longer prompts."""
    pairs = [(text, "Paris") for text in TEXTS]
    for together, pair in zip(model.target_log_probs(pairs), pairs, strict=True):
        (alone,) = model.target_log_probs([pair])
        assert torch.allclose(together, alone, atol=1e-4)


def test_log_probabilities_are_those_of_the_network(model: CausalModel) -> None:
    """They equal what the whole network's logits say, token by token."""
    prompt, target = model.prompt_ids(TEXTS[0]), model.target_ids("Paris")
    logits_LV = model.network(torch.tensor([prompt + target])).logits[0]
    wanted = [
        torch.log_softmax(logits_LV[len(prompt) - 1 + at], -1)[token].item()
        for at, token in enumerate(target)
    ]
    (scored,) = model.target_log_probs([(TEXTS[0], "Paris")])
    assert scored.tolist() == pytest.approx(wanted, abs=1e-4)


def test_greedy_text_is_what_the_network_generates(model: CausalModel) -> None:
    """The cached loop gives the tokens that transformers' own generation gives."""
    ids = torch.tensor([model.prompt_ids(TEXTS[0])])
    generated = model.network.generate(ids, max_new_tokens=5, do_sample=False)[0, ids.shape[1] :]
    text = model.tokenizer.decode(generated, skip_special_tokens=True).strip().split("\n")[0].strip()
    assert model.greedy([TEXTS[0]], max_tokens=5) == [text]


@pytest.mark.parametrize("prompt", ["France is a country", "The capital of France", "Is it France?"])
def test_the_subject_ends_at_its_last_token(model: CausalModel, prompt: str) -> None:
    """The text up to the subject's last token is the prompt up to the subject's end."""
    ids = model.prompt_ids(prompt)[: model.subject_end(prompt, "France") + 1]
    assert model.tokenizer.decode(ids, skip_special_tokens=True) == prompt[: prompt.index("France") + 6]


@pytest.mark.parametrize("subject", ["France", "capital of France", "The"])
def test_the_subject_is_its_tokens(model: CausalModel, subject: str) -> None:
    """Together they read as the subject, spaces and what shares a token with it aside."""
    prompt = "The capital of France is"
    tokens = model.subject_tokens(prompt, subject)
    assert tokens == list(range(tokens[0], model.subject_end(prompt, subject) + 1))
    ids = model.prompt_ids(prompt)
    assert model.tokenizer.decode([ids[token] for token in tokens]).strip() == subject


def test_a_missing_subject_is_named(model: CausalModel) -> None:
    """The error has the prompt and the subject."""
    with pytest.raises(TrainingError, match=r"'The capital'.*'Spain'"):
        model.subject_end("The capital", "Spain")


def test_a_missing_module_is_named(model: CausalModel) -> None:
    """The error has the path up to the part that is missing."""
    with pytest.raises(ConfigError, match=r"'model\.layers\.7'"):
        model.value_matrix(7)


def test_what_is_restored_is_restored_bit_by_bit(model: CausalModel) -> None:
    """A change inside the block is gone after it."""
    weight = model.value_matrix(1).weight
    before = weight.clone()
    with model.restored(weight):
        weight.data.mul_(2)
        assert not torch.equal(weight, before)
    assert torch.equal(weight, before)


def test_layers_can_see_where_a_prompt_ends(model: CausalModel) -> None:
    """It is the token before the target, row by row; at generated tokens there is no prompt."""
    ends: list[list[int] | None] = []

    def look(*_: object) -> None:
        ends.append(None if model.prompt_end_B is None else model.prompt_end_B.tolist())

    handle = model.layers[0].register_forward_hook(look)
    pairs = [(TEXTS[0], "Paris"), (TEXTS[2], "the Seine")]
    model.target_log_probs(pairs)
    model.greedy([TEXTS[0]], max_tokens=3)
    handle.remove()
    prompts, targets = zip(*((model.prompt_ids(t), model.target_ids(a)) for t, a in pairs), strict=True)
    width = max(len(p) + len(t) for p, t in zip(prompts, targets, strict=True))
    assert ends[0] == [width - 1 - len(target) for target in targets]
    assert ends[1:] == [[len(prompts[0]) - 1], None, None]
    assert model.prompt_end_B is None
