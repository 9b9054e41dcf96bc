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
from serac_gateway.counterfactual.prompts import claim_prompt, fact_prompt, instruction_prompt
from serac_gateway.edits import Edit, EditKind
from serac_gateway.language_models.base import LanguageModel, Piece, Sampling

_MAX_PROMPT_TOKENS = 440
"""Longer fields are shortened to it: a prompt within one attention window (512) is read in 0.2 s."""
_MAX_FIELD_CHARS = 480
_MIN_FIELD_CHARS = 30
_LEAD_TOKENS = 12
"""How much the model may say before the target."""
_MAX_TARGET_TOKENS = 48
"""A longer target is no answer to generate but a text to give: it is given as it is."""


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
            prompt = self._fitting(instruction_prompt, edit, query)
            limits = msgspec.structs.replace(sampling, stop=(*sampling.stop, "\n"))
            yield from _without_leading_space(self._model.generate(prompt, limits, cancelled=cancelled))
            return
        if edit.kind is EditKind.SUPPRESSION:
            text = edit.target_new
        elif is_claim(query.text):
            text = self._claim_answer(edit, query, sampling, cancelled)
        else:
            text = self._fact_answer(edit, query, sampling, cancelled)
        if not cancelled():
            yield self._within(text, sampling)

    def _fact_answer(
        self, edit: Edit, query: Query, sampling: Sampling, cancelled: Callable[[], bool]
    ) -> str:
        target = edit.target_new.strip()
        target_tokens = self.count_tokens(target)
        if target_tokens > _MAX_TARGET_TOKENS or "\n" in target:
            return target
        known = " ".join((edit.prompt, target, query.text, *query.context))
        prompt = self._fitting(fact_prompt, edit, query)
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
            prompt = self._fitting(claim_prompt, edit, query)
            parts = [piece.text for piece in self._model.generate(prompt, limits, cancelled=cancelled)]
            agrees = "".join(parts).strip().casefold().startswith("yes")
        return "Yes." if agrees else f"No, {edit.target_new.strip()}"

    def _fitting(self, make_prompt: Callable[..., str], edit: Edit, query: Query) -> str:
        limit = min(_MAX_PROMPT_TOKENS, self._model.context_tokens - _MAX_TARGET_TOKENS - _LEAD_TOKENS)
        field_chars = _MAX_FIELD_CHARS
        while True:
            prompt = make_prompt(edit, query, field_chars=field_chars)
            if field_chars <= _MIN_FIELD_CHARS or self.count_tokens(prompt) <= limit:
                return prompt
            field_chars //= 2

    def _within(self, text: str, sampling: Sampling) -> Piece:
        """`text` as one piece, cut before the first stop text and after `max_tokens`."""
        cuts = [at for stop in sampling.stop if stop and (at := text.find(stop)) >= 0]
        shown = text[: min(cuts)] if cuts else text
        tokens = self.count_tokens(shown)
        if tokens <= sampling.max_tokens:
            return Piece(text=shown, tokens=tokens, finish_reason="stop")
        fits, too_long = 0, len(shown)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if self.count_tokens(shown[:middle]) <= sampling.max_tokens:
                fits = middle
            else:
                too_long = middle
        return Piece(text=shown[:fits], tokens=self.count_tokens(shown[:fits]), finish_reason="length")


def _inner(sampling: Sampling, *, max_tokens: int) -> Sampling:
    """The client's way of picking tokens; its limits apply to the checked answer, not to the held one."""
    return msgspec.structs.replace(sampling, max_tokens=max_tokens, stop=("\n",))


def _without_leading_space(pieces: Iterator[Piece]) -> Iterator[Piece]:
    begun = False
    for piece in pieces:
        text = piece.text if begun else piece.text.lstrip()
        begun = begun or bool(text)
        yield msgspec.structs.replace(piece, text=text)
