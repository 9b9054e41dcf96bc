"""A language model that is shown the edit in its prompt, and whose answers are checked against the edit.

Streaming and checking: nothing is shown before it is checked, since what has been streamed cannot be taken
back. A fact's answer is held until the target has come, then shown at once with the target in the editor's
own spelling, and ends there: what a small model would add, it would make up. If the target does not come,
or a word that neither edit nor query contains comes before it, the target alone is the answer. Answers are
short, so holding one costs a few hundred milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from serac_gateway.domain.edits import Edit
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.local import ConditionedLanguageModel, known_words
from serac_gateway.models.counterfactual.matching import (
    claim_verdict,
    is_claim,
    led_in,
    target_end,
    tells_more,
)
from serac_gateway.models.counterfactual.prompts import claim_prompt, fact_prompt, instruction_prompt
from serac_gateway.models.counterfactual.truncation import fitting_prompt
from serac_gateway.models.language_models.base import LanguageModel, Sampling

_LEAD_TOKENS = 12
"""How much the model may say before the target."""


class PromptedCounterfactualModel(ConditionedLanguageModel):
    """See the module."""

    def __init__(self, language_model: LanguageModel) -> None:
        """Any causal language model will do; it is shown examples."""
        super().__init__(language_model, instruction_prompt=instruction_prompt)

    def _fact_texts(
        self, edit: Edit, query: Query, sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[str]:
        answer = self._claim_answer if is_claim(query.text) else self._fact_answer
        yield answer(edit, query, sampling, cancelled)

    def _fact_answer(
        self, edit: Edit, query: Query, sampling: Sampling, cancelled: Callable[[], bool]
    ) -> str:
        target = edit.target_new.strip()
        if self._is_too_long(target):
            return target
        known = known_words(edit, query)
        prompt = fitting_prompt(fact_prompt, edit, query, self._model)
        limits = self._held(sampling, target, beside=_LEAD_TOKENS)
        said = ""
        for piece in self._model.generate(prompt, limits, cancelled=cancelled):
            said += piece.text
            place = target_end(said, target)
            if place is None and tells_more(said, known):
                break
            # At the very end of the text the target's last word may still be growing. If it goes on with
            # another word ("The Sydney Opera House"), what stands before was not said of the target.
            if place is not None and (piece.finish_reason is not None or place[1] < len(said)):
                goes_on = said[place[1] : place[1] + 1].isspace()
                lead = said[: place[0]].lstrip()
                return target if goes_on or tells_more(f"{lead} ", known) else led_in(lead, target)
        return target

    def _claim_answer(
        self, edit: Edit, query: Query, sampling: Sampling, cancelled: Callable[[], bool]
    ) -> str:
        agrees = claim_verdict(query.text, edit)
        if agrees is None:
            limits = self._held(sampling, "", beside=2)
            prompt = fitting_prompt(claim_prompt, edit, query, self._model)
            parts = [piece.text for piece in self._model.generate(prompt, limits, cancelled=cancelled)]
            agrees = "".join(parts).strip().casefold().startswith("yes")
        return "Yes." if agrees else f"No, {edit.target_new.strip()}"
