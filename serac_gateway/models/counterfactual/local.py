"""The common behaviour of counterfactual models on a local language model: refusals, instructions, limits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator

import msgspec
from typing_extensions import override

from serac_gateway.domain.edits import Edit, EditKind
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.base import CounterfactualModel
from serac_gateway.models.counterfactual.guardrail import AnswerGuard
from serac_gateway.models.counterfactual.truncation import (
    MAX_TARGET_TOKENS,
    LimitedAnswer,
    PromptMaker,
    fitting_prompt,
)
from serac_gateway.models.counterfactual.verdicts.guard import leading_verdict
from serac_gateway.models.language_models.base import LanguageModel, Piece, Sampling

_VERDICT_TOKENS = 3


class FactGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """How the answer to a query in scope of a fact is generated."""

    prompt: str
    sampling: Sampling
    """Limits the generation, not what the client sees."""
    guard: AnswerGuard


class LocalCounterfactualModel(CounterfactualModel):
    """A language model whose prompt states the edit. A subclass has the prompts, and the guard of facts.

    A refusal is given as it is stored, without the model. An instruction's answer cannot be checked against
    the edit and streams unguarded. A target too long to be generated is given as it is.
    """

    def __init__(self, language_model: LanguageModel, *, instruction_prompt: PromptMaker) -> None:
        """`instruction_prompt` makes the prompt of an edit that is an instruction."""
        self._model = language_model
        self._instruction_prompt = instruction_prompt

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
        if edit.kind is EditKind.INSTRUCTION:
            prompt = fitting_prompt(self._instruction_prompt, edit, query, self._model)
            limits = msgspec.structs.replace(sampling, stop=(*sampling.stop, "\n"))
            begun = False
            for piece in self._model.generate(prompt, limits, cancelled=cancelled):
                text = piece.text if begun else piece.text.lstrip()  # a continuation begins with a space
                begun = begun or bool(text)
                yield msgspec.structs.replace(piece, text=text)
            return
        if edit.kind is EditKind.SUPPRESSION:
            generation: FactGeneration | str = edit.target_new
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
