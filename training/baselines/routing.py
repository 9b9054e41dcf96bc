"""Reading and replacing a layer's states where prompts end, row by row of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.baselines.base import silent
from training.baselines.causal_model import Batch, CausalModel
from training.progress import OnProgress

_AT_ONCE = 8


def prompt_ends(model: CausalModel, output: Any) -> Tensor:  # noqa: ANN401 - a tensor, or a tuple of it and more
    """Of a layer's output (B, L, width) the states of each prompt's last token, (B, width)."""
    states_BLD: Tensor = output[0] if isinstance(output, tuple) else output
    assert model.prompt_end_B is not None, "prompts are being read"
    return states_BLD[torch.arange(len(states_BLD)), model.prompt_end_B]


def replaced(model: CausalModel, output: Any, values: Sequence[Tensor | None]) -> Any:  # noqa: ANN401
    """The output with another state at the last token of each prompt that has one; else it is untouched."""
    rows = [row for row, value_D in enumerate(values) if value_D is not None]
    if not rows:
        return output
    assert model.prompt_end_B is not None, "prompts are being read"
    states_BLD: Tensor = output[0] if isinstance(output, tuple) else output
    changed_BLD = states_BLD.clone()
    stacked_RD = torch.stack([value_D for value_D in values if value_D is not None])
    changed_BLD[torch.tensor(rows), model.prompt_end_B[rows]] = stacked_RD
    return (changed_BLD, *output[1:]) if isinstance(output, tuple) else changed_BLD


def prompt_end_inputs(
    model: CausalModel, module: nn.Module, texts: Sequence[str], *, on_progress: OnProgress = silent
) -> Tensor:
    """What `module` gets at the last token of each text, (B, width)."""
    return _inputs(model, module, texts, lambda batch: (slice(None), -1), on_progress)


def token_inputs(
    model: CausalModel, module: nn.Module, texts: Sequence[str], *, on_progress: OnProgress = silent
) -> Tensor:
    """What `module` gets at all tokens of the texts but the first of each, (tokens, width)."""
    return _inputs(model, module, texts, lambda batch: batch.positions_BL > 0, on_progress)


@torch.no_grad()
def _inputs(
    model: CausalModel, module: nn.Module, texts: Sequence[str], places: Callable[[Batch], Any],
    on_progress: OnProgress,
) -> Tensor:  # fmt: skip
    seen: list[Tensor] = []
    hook = module.register_forward_hook(lambda _, given, output: seen.append(given[0]))
    try:
        for begin in range(0, len(texts), _AT_ONCE):
            batch = model.batch([model.prompt_ids(text) for text in texts[begin : begin + _AT_ONCE]])
            model.hidden(batch)
            seen[-1] = seen[-1][places(batch)].clone()
            on_progress("prompts", min(begin + _AT_ONCE, len(texts)), len(texts))
    finally:
        hook.remove()
    return torch.cat(seen)
