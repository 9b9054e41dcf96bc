"""A language model fine-tuned on the prompt of this package; its answers are guarded as they stream.

The prompt is the case alone, and the model ends its answer itself. Every answer that passes the guard
contains the target exactly (guardrail.py), and begins with yes or no only where a judgement of the edit says
so (verdicts/guard.py). Whether it declines (declines.py) is settled by its likeliest words, whatever the
temperature of the answer.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from typing_extensions import override

from serac_gateway.domain.edits import Edit
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.declines import (
    TRAINED_DECLINE,
    DecliningGuard,
    can_be_declined,
    declined,
    is_decline,
)
from serac_gateway.models.counterfactual.followed import NOTE_LEAD
from serac_gateway.models.counterfactual.guardrail import StreamingGuard
from serac_gateway.models.counterfactual.local import (
    FactGeneration,
    LocalCounterfactualModel,
    known_words,
    words_guard,
)
from serac_gateway.models.counterfactual.prompts import trained_prompt
from serac_gateway.models.counterfactual.truncation import fitting_prompt
from serac_gateway.models.counterfactual.verdicts.guard import fact_guard
from serac_gateway.models.language_models.base import LanguageModel, Sampling

_SENTENCE_LEAD = "The"
"""With it the answer begins where a sentence is wanted: the adapter goes on with what the question names."""
_BESIDES_TARGET_TOKENS = 32
"""How much the model may generate besides the target; the longest answers repeat a question."""


class FineTunedCounterfactualModel(LocalCounterfactualModel):
    """See the module."""

    def __init__(self, language_model: LanguageModel) -> None:
        """A model that `serac-train counterfactual` trained: its adapter merged or applied."""
        super().__init__(
            language_model, instruction_prompt=trained_prompt, instruction_leads=("", f" {NOTE_LEAD}")
        )

    @override
    def _fact(self, edit: Edit, query: Query, sampling: Sampling) -> FactGeneration | str:
        target = edit.target_new.strip()
        if self._is_too_long(target):
            return target
        return FactGeneration(
            prompt=fitting_prompt(trained_prompt, edit, query, self._model),
            sampling=self._generation_sampling(sampling, target, besides=_BESIDES_TARGET_TOKENS),
            guard=fact_guard(
                words_guard(StreamingGuard(target, known=known_words(edit, query)), edit, query),
                edit,
                query,
                says_yes=lambda other: self._says_yes(trained_prompt, edit, other),
            ),
        )

    @override
    def sentence(self, edit: Edit, query: Query) -> str | None:
        target = edit.target_new.strip()
        if query.language not in (None, "en") or self._is_too_long(target):
            return None
        prompt = fitting_prompt(trained_prompt, edit, query, self._model)
        limits = Sampling(max_tokens=self._model.count_tokens(target) + _BESIDES_TARGET_TOKENS, stop=("\n",))
        guard = StreamingGuard(target, known=known_words(edit, query))
        said = guard.feed(_SENTENCE_LEAD)
        for piece in self._model.generate(prompt + f" {_SENTENCE_LEAD}", limits):
            said += guard.feed(piece.text)
            if guard.ended:
                return None  # a word of its own, or the target before a sentence has begun
        said += guard.finish()
        is_sentence = said.startswith(_SENTENCE_LEAD) and said.endswith(".") and target in said
        return said if is_sentence else None

    @override
    def _declinable(
        self, generation: FactGeneration, edit: Edit, cancelled: Callable[[], bool]
    ) -> FactGeneration:
        if not can_be_declined(edit.target_new, TRAINED_DECLINE):
            return generation
        if generation.sampling.temperature > 0:
            if self._declines(generation, cancelled):
                raise declined(edit.id)
            return generation
        guard = DecliningGuard(generation.guard, decline=TRAINED_DECLINE, edit_id=edit.id)
        return msgspec.structs.replace(generation, guard=guard)

    def _declines(self, generation: FactGeneration, cancelled: Callable[[], bool]) -> bool:
        """Whether the likeliest answer is a decline: the first tokens of it are generated."""
        limit = self._model.count_tokens(TRAINED_DECLINE) + 1
        greedy = msgspec.structs.replace(generation.sampling, max_tokens=limit, temperature=0.0, seed=None)
        said = ""
        for piece in self._model.generate(generation.prompt, greedy, cancelled=cancelled):
            said += piece.text
            verdict = is_decline(said, TRAINED_DECLINE)
            if verdict is not None:
                return verdict
        return False
