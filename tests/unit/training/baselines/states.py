"""What tests compare bit by bit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.baselines.causal_model import CausalModel

PARIS = "The capital of France is"
RIVER = "The river, as everybody knows, is"
WHO = "Who?"


@torch.no_grad()
def states(model: CausalModel, *texts: str) -> Tensor:
    """The last states of the texts as one batch, (B, L, width)."""
    return model.hidden(model.batch([model.prompt_ids(model.prompt_text(text)) for text in texts]))


@torch.no_grad()
def greedy_without_cache(model: CausalModel, text: str, tokens: int) -> str:
    """Greedy text for which the whole sequence is read anew at every token."""
    prompt, generated = model.prompt_ids(text), list[int]()
    for _ in range(tokens):
        batch = model.batch([[*prompt, *generated]], target_tokens=[len(generated)])
        generated.append(int(model.logits(model.hidden(batch)[0, -1]).argmax()))
    said: str = model.tokenizer.decode(generated, skip_special_tokens=True)
    return said.strip().split("\n")[0].strip()


def parameters(model: CausalModel) -> Sequence[Tensor]:
    """Copies of all parameters and buffers."""
    return [value.clone() for value in model.network.state_dict().values()]
