"""The common behaviour of counterfactual models on a local language model: refusals, instructions, limits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator

import msgspec
from typing_extensions import override

from serac_gateway.domain.edits import Edit, EditKind
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.base import CounterfactualModel
from serac_gateway.models.counterfactual.declines import not_followed
from serac_gateway.models.counterfactual.followed import followed
from serac_gateway.models.counterfactual.guardrail import AnswerGuard, WholeGuard
from serac_gateway.models.counterfactual.truncation import (
    MAX_TARGET_TOKENS,
    LimitedAnswer,
    PromptMaker,
    fitting_prompt,
)
from serac_gateway.models.counterfactual.verdicts.guard import leading_verdict
from serac_gateway.models.counterfactual.verdicts.languages import language_of
from serac_gateway.models.language_models.base import LanguageModel, Piece, Sampling

_MODEL_LANGUAGE = "en"
"""The one in which a model makes sentences of its own."""
_VERDICT_TOKENS = 3
_BESIDES_INSTRUCTION_TOKENS = 16
"""How much the model may generate besides what the instruction says."""


class FactGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """How the answer to a query in scope of a fact is generated."""

    prompt: str
    sampling: Sampling
    """Limits the generation, not what the client sees."""
    guard: AnswerGuard


class LocalCounterfactualModel(CounterfactualModel):
    """A language model whose prompt states the edit. A subclass has the prompts, and the guard of facts.

    A refusal is given as it is stored, without the model. An instruction's answer is held until it is known
    to follow (followed.py). A target too long to be generated is given as it is.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        *,
        instruction_prompt: PromptMaker,
        instruction_leads: tuple[str, ...] = ("",),
    ) -> None:
        """`instruction_prompt` makes the prompt of an edit that is an instruction.

        `instruction_leads` are beginnings of its answer, tried one after the other until an answer follows.
        """
        self._model = language_model
        self._instruction_prompt = instruction_prompt
        self._instruction_leads = instruction_leads

    @override
    def count_tokens(self, text: str) -> int:
        return self._model.count_tokens(text)

    @override
    def answer(
        self,
        edit: Edit,
        query: Query,
        sampling: Sampling,
        *,
        may_decline: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Piece]:
        if edit.kind is EditKind.SUPPRESSION:
            generation: FactGeneration | str = edit.target_new
        elif edit.kind is EditKind.INSTRUCTION:
            generation = self._following(edit, query, sampling, cancelled)
            if cancelled():
                return
        else:
            generation = self._fact(edit, query, sampling)
            if may_decline and isinstance(generation, FactGeneration):
                generation = self._declinable(generation, edit, cancelled)
        if isinstance(generation, str):
            answer = LimitedAnswer(sampling, self._model)
            for piece in answer.feed(generation):
                if cancelled():
                    return
                yield piece
        else:
            answer = LimitedAnswer(sampling, self._model, generation.guard)
            for generated in self._model.generate(
                generation.prompt, generation.sampling, cancelled=cancelled
            ):
                for piece in answer.feed(generated.text):
                    if cancelled():
                        return
                    yield piece
                if answer.ended:
                    break
        for piece in answer.finish():
            if cancelled():
                return
            yield piece

    def _following(self, edit: Edit, query: Query, sampling: Sampling, cancelled: Callable[[], bool]) -> str:
        """An answer that follows the instruction; without the client's temperature, so that all are the same.

        Raises:
            AnswerDeclinedError: The model gives none.
        """
        prompt = fitting_prompt(self._instruction_prompt, edit, query, self._model)
        limits = self._generation_sampling(sampling, edit.target_new, besides=_BESIDES_INSTRUCTION_TOKENS)
        room = min(limits.max_tokens, MAX_TARGET_TOKENS + _BESIDES_INSTRUCTION_TOKENS)
        greedy = msgspec.structs.replace(limits, max_tokens=room, temperature=0.0, seed=None)
        for lead in self._instruction_leads:
            pieces = self._model.generate(prompt + lead, greedy, cancelled=cancelled)
            generated = (lead + "".join(piece.text for piece in pieces)).strip()
            if cancelled():
                return ""
            if (answer := followed(generated, edit, query)) is not None:
                return answer
        raise not_followed(edit.id)

    @abstractmethod
    def _fact(self, edit: Edit, query: Query, sampling: Sampling) -> FactGeneration | str:
        """How to answer a query in scope of a fact, or the answer itself if no model is needed."""

    def _declinable(
        self, generation: FactGeneration, edit: Edit, cancelled: Callable[[], bool]
    ) -> FactGeneration:
        """`generation`, which raises AnswerDeclinedError where the model declines; here it never does.

        May raise that error itself.
        """
        return generation

    def _says_yes(self, make_prompt: PromptMaker, edit: Edit, query: Query) -> bool:
        """Whether the model's likeliest answer to `query` begins with yes."""
        prompt = fitting_prompt(make_prompt, edit, query, self._model)
        sampling = Sampling(max_tokens=_VERDICT_TOKENS, temperature=0.0, stop=("\n",))
        return (
            leading_verdict("".join(piece.text for piece in self._model.generate(prompt, sampling))) is True
        )

    def _is_too_long(self, target: str) -> bool:
        return "\n" in target or self.count_tokens(target) > MAX_TARGET_TOKENS

    def _generation_sampling(self, sampling: Sampling, target: str, *, besides: int) -> Sampling:
        """The client's temperature, top_p and seed, with room for `target` and `besides` tokens more.

        The client's max_tokens and stop texts apply to the guarded text: see `LimitedAnswer`.
        """
        max_tokens = self.count_tokens(target) + besides
        return msgspec.structs.replace(sampling, max_tokens=max_tokens, stop=("\n",))


def known_words(edit: Edit, query: Query) -> str:
    """The words of edit and query."""
    return " ".join((edit.prompt, edit.target_new.strip(), query.text, *query.context))


def words_guard(guard: AnswerGuard, edit: Edit, query: Query) -> AnswerGuard:
    """`guard`, or a stricter one for an answer that is wanted in another language than English.

    The edit's prompt counts only if it is in that language.
    """
    if query.language in (None, _MODEL_LANGUAGE):
        return guard
    is_of_language = language_of(edit.prompt) == query.language
    texts = (edit.prompt if is_of_language else "", edit.target_new, query.text, *query.context)
    return WholeGuard(edit.target_new, known=" ".join(texts))
