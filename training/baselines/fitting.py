"""Gradient descent on the new answers: the loss and the loop that several methods share.

Breadth first: every epoch goes once over all edits of a call, in shuffled batches. Going deep into each edit
before the next (25 steps, then on) forgets the earlier ones (Yang et al., arXiv 2509.22072); a caller that
passes edits alone gets that order. Loss of a pair (prompt x, target y of T tokens), averaged over the pairs:

- "target" (FT-M; Zhang et al. 2024, arXiv 2401.01286): -1/T · Σ_t log p(y_t | x, y_<t), teacher-forced; the
  prompt's own tokens have no loss.
- "prompt_end" (FT-L as ROME and EasyEdit compute it): -1/T · Σ_t log p(y_t | x), every token of the target
  at the prompt's end. A target of several tokens cannot be learnt so; with a single one it is the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import torch
from torch import Tensor, nn

from serac_gateway.domain.edits import EditDraft
from training.baselines.base import silent
from training.baselines.causal_model import CausalModel
from training.baselines.parameters import with_gradients
from training.progress import OnProgress
from training.runs import TrainingError

Pair = tuple[str, str]
"""What the model reads, and what it has to say."""


class FitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to descend, with Adam without weight decay."""

    learning_rate: float
    epochs: int
    """At most; for a single edit these are the steps."""
    batch_size: int
    stop_loss: float
    """No further epoch after one whose mean loss, in nats a token, is below."""
    loss_at: Literal["target", "prompt_end"] = "target"
    seed: int = 13
    """Of the order of the pairs."""


def pairs_of(model: CausalModel, edits: Sequence[EditDraft]) -> list[Pair]:
    """The edits as the model reads and is to answer them."""
    return [(model.prompt_text(edit.prompt), edit.target_new) for edit in edits]


def target_loss(model: CausalModel, pairs: Sequence[Pair]) -> Tensor:
    """The loss "target", a scalar in nats a token."""
    scored = model.target_log_probs(pairs, at_once=len(pairs))
    return -torch.stack([log_probs_T.mean() for log_probs_T in scored]).mean()


def prompt_end_loss(model: CausalModel, pairs: Sequence[Pair]) -> Tensor:
    """The loss "prompt_end", a scalar in nats a token."""
    states_BLD = model.hidden(model.batch([model.prompt_ids(text) for text, _ in pairs]))
    log_probs_BV = torch.log_softmax(model.logits(states_BLD[:, -1]), -1)
    scored = [
        log_probs_V[torch.tensor(model.target_ids(target))].mean()
        for log_probs_V, (_, target) in zip(log_probs_BV, pairs, strict=True)
    ]
    return -torch.stack(scored).mean()


def fit(
    model: CausalModel, parameters: Sequence[nn.Parameter], pairs: Sequence[Pair], settings: FitSettings, *,
    beside: Callable[[], Tensor] | None = None, after_step: Callable[[], None] = lambda: None,
    on_progress: OnProgress = silent,
) -> float:  # fmt: skip
    """Change `parameters` until the model gives the targets; returns their mean loss in the last epoch.

    They have gradients only meanwhile. `beside` is a further loss of every step, which the returned loss and
    the end of the descent do not count; `after_step` may put a constraint on the parameters.

    Raises:
        TrainingError: The loss became infinite or no number; the parameters stay as they then are.
    """
    loss_of = target_loss if settings.loss_at == "target" else prompt_end_loss
    order, rng = list(range(len(pairs))), random.Random(settings.seed)
    total = len(pairs) * settings.epochs
    mean_loss = 0.0
    with with_gradients(parameters) as chosen:
        optimizer = torch.optim.Adam(chosen, lr=settings.learning_rate)
        for epoch in range(settings.epochs):
            rng.shuffle(order)
            mean_loss = 0.0
            for begin in range(0, len(order), settings.batch_size):
                batch = [pairs[index] for index in order[begin : begin + settings.batch_size]]
                mean_loss += _step(optimizer, loss_of(model, batch), beside) * len(batch) / len(pairs)
                after_step()
                on_progress("descending", epoch * len(pairs) + begin + len(batch), total)
            if mean_loss < settings.stop_loss:
                break
    on_progress("descending", total, total)
    return mean_loss


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, beside: Callable[[], Tensor] | None) -> float:
    of_targets = loss.item()
    if beside is not None:
        loss = loss + beside()
    if not torch.isfinite(loss):
        raise TrainingError(
            f"the loss of the edits became {loss.item()!r}; undo the edits and lower learning_rate"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return of_targets
