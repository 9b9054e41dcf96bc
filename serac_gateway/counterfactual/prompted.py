"""A language model that is shown the edit in its prompt, and whose answers are checked against the edit.

Streaming and checking: nothing is shown before it is checked, since what has been streamed cannot be taken
back. A fact's answer is held until the target has come, then shown at once with the target in the editor's
own spelling, and ends there: what a small model would add, it would make up. If the target does not come,
or a word that neither edit nor query contains comes before it, the target alone is the answer. Answers are
short, so holding one costs a few hundred milliseconds.
An instruction's answer has nothing to be checked against and streams as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from serac_gateway.conversation import Query
from serac_gateway.counterfactual.base import CounterfactualModel
from serac_gateway.counterfactual.checking import claim_verdict, is_claim, led_in, target_end, tells_more
from serac_gateway.counterfactual.limits import (
    MAX_TARGET_TOKENS,
    fitting_prompt,
    limited,
    without_leading_space,
)
from serac_gateway.counterfactual.prompts import claim_prompt, fact_prompt, instruction_prompt
from serac_gateway.edits import Edit, EditKind
from serac_gateway.language_models.base import LanguageModel, Piece, Sampling

_LEAD_TOKENS = 12
"""How much the model may say before the target."""


class PromptedCounterfactualModel(CounterfactualModel):
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
            prompt = fitting_prompt(instruction_prompt, edit, query, self._model)
            limits = msgspec.structs.replace(sampling, stop=(*sampling.stop, "\n"))
            yield from without_leading_space(self._model.generate(prompt, limits, cancelled=cancelled))
            return
        if edit.kind is EditKind.SUPPRESSION:
            text = edit.target_new
        elif is_claim(query.text):
            text = self._claim_answer(edit, query, sampling, cancelled)
        else:
            text = self._fact_answer(edit, query, sampling, cancelled)
        if not cancelled():
            yield from limited([text], sampling, self._model)

    def _fact_answer(
        self, edit: Edit, query: Query, sampling: Sampling, cancelled: Callable[[], bool]
    ) -> str:
        target = edit.target_new.strip()
        target_tokens = self.count_tokens(target)
        if target_tokens > MAX_TARGET_TOKENS or "\n" in target:
            return target
        known = " ".join((edit.prompt, target, query.text, *query.context))
        prompt = fitting_prompt(fact_prompt, edit, query, self._model)
        limits = _inner(sampling, max_tokens=target_tokens + _LEAD_TOKENS)
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
            limits = _inner(sampling, max_tokens=2)
            prompt = fitting_prompt(claim_prompt, edit, query, self._model)
            parts = [piece.text for piece in self._model.generate(prompt, limits, cancelled=cancelled)]
            agrees = "".join(parts).strip().casefold().startswith("yes")
        return "Yes." if agrees else f"No, {edit.target_new.strip()}"


def _inner(sampling: Sampling, *, max_tokens: int) -> Sampling:
    """The client's way of picking tokens; its limits apply to the checked answer, not to the held one."""
    return msgspec.structs.replace(sampling, max_tokens=max_tokens, stop=("\n",))
