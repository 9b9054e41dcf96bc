"""Any causal language model, with examples in its prompt; its answers are held until they are checked.

Streamed text cannot be taken back, so a fact's answer is held until the target has come. It is then released
at once, with the target in the editor's own spelling, and ends there: a small model would make up the rest.
If the target does not come, or a word that neither edit nor query contains comes before it, the target alone
is the answer. Answers are short, so holding one costs a few hundred milliseconds. An answer that begins with
yes or no is decided on by a judgement of the edit (verdicts/guard.py).
"""

from __future__ import annotations

from typing_extensions import override

from serac_gateway.domain.edits import Edit
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.guardrail import AnswerGuard
from serac_gateway.models.counterfactual.local import (
    FactGeneration,
    LocalCounterfactualModel,
    known_words,
    words_guard,
)
from serac_gateway.models.counterfactual.matching import has_unknown_word, led_in, target_span
from serac_gateway.models.counterfactual.prompts import fact_prompt, instruction_prompt
from serac_gateway.models.counterfactual.truncation import fitting_prompt
from serac_gateway.models.counterfactual.verdicts.guard import fact_guard
from serac_gateway.models.language_models.base import LanguageModel, Sampling

_LEAD_TOKENS = 12
"""How much the model may generate before the target."""


class FewShotCounterfactualModel(LocalCounterfactualModel):
    """See the module."""

    def __init__(self, language_model: LanguageModel) -> None:
        """The model need not be trained for it."""
        super().__init__(language_model, instruction_prompt=instruction_prompt)

    @override
    def _fact(self, edit: Edit, query: Query, sampling: Sampling) -> FactGeneration | str:
        target = edit.target_new.strip()
        if self._is_too_long(target):
            return target
        return FactGeneration(
            prompt=fitting_prompt(fact_prompt, edit, query, self._model),
            sampling=self._generation_sampling(sampling, target, besides=_LEAD_TOKENS),
            guard=fact_guard(
                words_guard(HoldingGuard(target, known=known_words(edit, query)), edit, query),
                edit,
                query,
                says_yes=lambda other: self._says_yes(fact_prompt, edit, other),
            ),
        )


class HoldingGuard(AnswerGuard):
    """Holds all text until the target has come: see the module."""

    def __init__(self, target: str, *, known: str) -> None:
        """`target` is the edit's answer; `known` the text of edit and query, the target included."""
        self._target = target
        self._known = known
        self._text = ""

    @override
    def feed(self, text: str) -> str:
        self._text += text
        span = target_span(self._text, self._target)
        if span is None:
            self.ended = has_unknown_word(self._text, self._known)
            return self._target if self.ended else ""
        # At the very end of the text the target's last word may still be growing.
        if span[1] == len(self._text):
            return ""
        self.ended = True
        return self._with_lead(span)

    @override
    def finish(self) -> str:
        if self.ended:
            return ""
        self.ended = True
        span = target_span(self._text, self._target)
        return self._target if span is None else self._with_lead(span)

    def _with_lead(self, span: tuple[int, int]) -> str:
        # If another word follows ("The Sydney Opera House"), the text before was not about the target.
        goes_on = self._text[span[1] : span[1] + 1].isspace()
        lead = self._text[: span[0]].lstrip()
        return (
            self._target
            if goes_on or has_unknown_word(f"{lead} ", self._known)
            else led_in(lead, self._target)
        )
