"""A language model that training taught our prompt, and whose answers are guarded as they stream.

The prompt is the case alone, the answer ends where the model ends it. What the guard lets through contains
the target exactly (`guarding`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from serac_gateway.domain.edits import Edit
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.guardrail import GuardedAnswer
from serac_gateway.models.counterfactual.local import ConditionedLanguageModel, known_words
from serac_gateway.models.counterfactual.prompts import trained_prompt
from serac_gateway.models.counterfactual.truncation import fitting_prompt
from serac_gateway.models.language_models.base import LanguageModel, Sampling

_BESIDE_TARGET_TOKENS = 32
"""How much the model may say besides the target; the longest answers repeat a question."""


class TrainedCounterfactualModel(ConditionedLanguageModel):
    """See the module."""

    def __init__(self, language_model: LanguageModel) -> None:
        """A model that `serac-train counterfactual` trained: its adapter merged or applied."""
        super().__init__(language_model, instruction_prompt=trained_prompt)

    def _fact_texts(
        self, edit: Edit, query: Query, sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[str]:
        target = edit.target_new.strip()
        if self._is_too_long(target):
            yield target
            return
        guarded = GuardedAnswer(target, known=known_words(edit, query))
        prompt = fitting_prompt(trained_prompt, edit, query, self._model)
        limits = self._held(sampling, target, beside=_BESIDE_TARGET_TOKENS)
        for piece in self._model.generate(prompt, limits, cancelled=cancelled):
            yield guarded.feed(piece.text)
            if guarded.ended:
                break
        yield guarded.finish()
