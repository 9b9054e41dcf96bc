"""Picks the tokens of an answer from logits: temperature, nucleus, penalties, log probabilities."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from serac_gateway.models.language_models.base import GeneratedToken, Sampling


class TokenPicker:
    """Picks one answer's tokens, one after the other. V is the vocabulary."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = None if sampling.seed is None else torch.Generator().manual_seed(sampling.seed)
        self._counts: Counter[int] = Counter()

    def pick(self, logits_V: Tensor) -> GeneratedToken:
        """The next token, given the logits for it in float32 on the CPU. *Shape:* (V,)."""
        token_id = self._pick(self._penalised(logits_V))
        self._counts[token_id] += 1
        if self._sampling.logprobs is None:
            return GeneratedToken(token_id=token_id)
        logprobs_V = logits_V.log_softmax(-1)
        best = logprobs_V.topk(min(self._sampling.logprobs, len(logprobs_V)))
        return GeneratedToken(
            token_id=token_id,
            logprob=float(logprobs_V[token_id]),
            likeliest=tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)),
        )

    def _penalised(self, logits_V: Tensor) -> Tensor:
        frequency, presence = self._sampling.frequency_penalty, self._sampling.presence_penalty
        if not self._counts or not (frequency or presence):
            return logits_V
        ids = torch.tensor(list(self._counts))
        penalties = torch.tensor([frequency * count + presence for count in self._counts.values()])
        return logits_V.index_add(0, ids, -penalties)

    def _pick(self, logits_V: Tensor) -> int:
        if self._sampling.temperature == 0:
            return int(logits_V.argmax())
        ranked_V, order_V = (logits_V / self._sampling.temperature).softmax(-1).sort(descending=True)
        # Nucleus: the fewest tokens that reach top_p together, so at least one (arXiv 1904.09751).
        kept_V = ranked_V * (ranked_V.cumsum(-1) - ranked_V < self._sampling.top_p)
        return int(order_V[torch.multinomial(kept_V, 1, generator=self._random)])
