"""What every counterfactual model on a language model does alike: refusals, instructions, limits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator

import msgspec

from serac_gateway.domain.edits import Edit, EditKind
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.base import CounterfactualModel
from serac_gateway.models.counterfactual.truncation import (
    MAX_TARGET_TOKENS,
    PromptMaker,
    fitting_prompt,
    limited,
    without_leading_space,
)
from serac_gateway.models.language_models.base import LanguageModel, Piece, Sampling


class ConditionedLanguageModel(CounterfactualModel):
    """A language model that is shown the edit. A subclass says with which prompt, and how a fact is answered.

    A refusal is given as it is stored, by no model. An instruction's answer has nothing to be checked against
    and streams as it comes. A target too long to be generated is given as it is.
    """

    def __init__(self, language_model: LanguageModel, *, instruction_prompt: PromptMaker) -> None:
        """`instruction_prompt` shows the model an edit that tells how to speak of a topic."""
        self._model = language_model
        self._instruction_prompt = instruction_prompt

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
            prompt = fitting_prompt(self._instruction_prompt, edit, query, self._model)
            limits = msgspec.structs.replace(sampling, stop=(*sampling.stop, "\n"))
            yield from without_leading_space(self._model.generate(prompt, limits, cancelled=cancelled))
            return
        if edit.kind is EditKind.SUPPRESSION:
            texts = iter((edit.target_new,))
        else:
            texts = self._fact_texts(edit, query, sampling, cancelled)
        for piece in limited(texts, sampling, self._model):
            if cancelled():
                return
            yield piece

    @abstractmethod
    def _fact_texts(
        self, edit: Edit, query: Query, sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[str]:
        """The answer to a query in scope of a fact, in pieces that may be shown; limits come after."""

    def _is_too_long(self, target: str) -> bool:
        return "\n" in target or self.count_tokens(target) > MAX_TARGET_TOKENS

    def _held(self, sampling: Sampling, target: str, *, beside: int) -> Sampling:
        """The client's way of picking tokens, with room for `target` and `beside` tokens more.

        Its own limits apply to what is shown, not to what is held.
        """
        max_tokens = self.count_tokens(target) + beside
        return msgspec.structs.replace(sampling, max_tokens=max_tokens, stop=("\n",))


def known_words(edit: Edit, query: Query) -> str:
    """All that edit and query say."""
    return " ".join((edit.prompt, edit.target_new.strip(), query.text, *query.context))
