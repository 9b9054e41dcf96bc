"""A prompt read once, for methods that change nothing before its last token and fit a target many times."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from serac_gateway.domain.edits import EditDraft
from training.baselines.causal_model import CausalModel


class CachedPrompt:
    """The keys and values of all tokens of an edit's prompt but the last, which each scoring begins with.

    A scoring then reads one token and the target, where a prompt has ten or twenty.
    """

    def __init__(self, model: CausalModel, edit: EditDraft) -> None:
        """Reads the prompt with the model as it is now; what is changed later must not act before its end."""
        self._model = model
        *before, last = model.prompt_ids(model.prompt_text(edit.prompt))
        target = model.target_ids(edit.target_new)
        self.target_T = torch.tensor(target)
        self._tail = model.batch([[last, *target[:-1]]], target_tokens=[len(target) - 1])
        self._positions_1L = self._tail.positions_BL + len(before)
        self._mask_1L = torch.ones((1, len(before) + len(target)), dtype=torch.long)
        self._cache: Any = None
        if before:
            read = model.batch([before])
            with torch.no_grad():
                out = model.network.base_model(
                    input_ids=read.ids_BL, attention_mask=read.mask_BL, position_ids=read.positions_BL,
                    use_cache=True,
                )  # fmt: skip
            self._cache = out.past_key_values

    def target_states(self) -> Tensor:
        """The last layer's states that predict the target's tokens, (tokens, width). Differentiable."""
        with self._model.reading(self._tail):
            out = self._model.network.base_model(
                input_ids=self._tail.ids_BL, attention_mask=self._mask_1L, position_ids=self._positions_1L,
                past_key_values=copy.deepcopy(self._cache), use_cache=self._cache is not None,
            )  # fmt: skip
        states_TD: Tensor = out.last_hidden_state[0]
        return states_TD

    def log_probs(self) -> Tensor:
        """Of every token of the target the log-probability, (tokens,). Differentiable."""
        logits_TV = self._model.logits(self.target_states())
        return torch.log_softmax(logits_TV, -1).gather(1, self.target_T[:, None])[:, 0]

    def predicted(self) -> Tensor:
        """At each token of the target the most probable one, (tokens,)."""
        predicted_T: Tensor = self._model.logits(self.target_states()).argmax(-1)
        return predicted_T
