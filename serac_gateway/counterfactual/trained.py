"""A language model that training taught our prompt, and whose answers are guarded as they stream.

The prompt is the case alone, the answer ends where the model ends it. What the guard lets through contains
the target exactly (`guarding`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from serac_gateway.conversation import Query
from serac_gateway.counterfactual.base import CounterfactualModel
from serac_gateway.counterfactual.guarding import GuardedAnswer
from serac_gateway.counterfactual.limits import (
    MAX_TARGET_TOKENS,
    fitting_prompt,
    limited,
    without_leading_space,
)
from serac_gateway.counterfactual.prompts import trained_prompt
from serac_gateway.edits import Edit, EditKind
from serac_gateway.language_models.base import LanguageModel, Piece, Sampling

_BESIDE_TARGET_TOKENS = 32
"""How much the model may say besides the target; the longest answers repeat a question."""


class TrainedCounterfactualModel(CounterfactualModel):
    """See the module."""

    def __init__(self, language_model: LanguageModel) -> None:
        self._model = language_model

    def count_tokens(self, text: str) -> int:
        """See `CounterfactualModel.count_tokens`."""
        return self._model.count_tokens(text)

    def answer(
        self,
        edit: Edit,
        query: Query,
        sampling: Sampling,
        *,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Piece]:
        """See `CounterfactualModel.answer`."""
        if edit.kind is EditKind.INSTRUCTION:
            prompt = fitting_prompt(trained_prompt, edit, query, self._model)
            limits = msgspec.structs.replace(sampling, stop=(*sampling.stop, "\n"))
            yield from without_leading_space(self._model.generate(prompt, limits, cancelled=cancelled))
            return
        for piece in limited(self._texts(edit, query, sampling, cancelled), sampling, self._model):
            if cancelled():
                return
            yield piece

    def _texts(
        self, edit: Edit, query: Query, sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[str]:
        target = edit.target_new.strip()
        target_tokens = self.count_tokens(target)
        if edit.kind is EditKind.SUPPRESSION or target_tokens > MAX_TARGET_TOKENS or "\n" in target:
            yield edit.target_new if edit.kind is EditKind.SUPPRESSION else target
            return
        known = " ".join((edit.prompt, target, query.text, *query.context))
        guarded = GuardedAnswer(target, known=known)
        # The client's limits apply to what the guard lets through; here only to its way of picking tokens.
        inner = msgspec.structs.replace(
            sampling, max_tokens=target_tokens + _BESIDE_TARGET_TOKENS, stop=("\n",)
        )
        prompt = fitting_prompt(trained_prompt, edit, query, self._model)
        for piece in self._model.generate(prompt, inner, cancelled=cancelled):
            yield guarded.feed(piece.text)
            if guarded.ended:
                break
        yield guarded.finish()
