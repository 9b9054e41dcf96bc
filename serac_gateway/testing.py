"""Fakes: small working implementations of the seams, for the tests of this package and of its users."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence

from serac_gateway.conversation import Query
from serac_gateway.counterfactual.base import CounterfactualModel
from serac_gateway.edits import Edit
from serac_gateway.errors import InvalidRequestError
from serac_gateway.language_models.base import LanguageModel, Piece, Sampling
from serac_gateway.language_models.stop_texts import StopTexts


class ScriptedLanguageModel(LanguageModel):
    """Answers by a script instead of by a network. A token is a word with the space before it."""

    def __init__(
        self,
        script: str | Callable[[str], str],
        *,
        context_tokens: int = 4_096,
        token_delay_s: float = 0.0,
    ) -> None:
        """`script` is the continuation, or a function from the prompt to it (which may raise)."""
        self._script = script
        self._context_tokens = context_tokens
        self._token_delay_s = token_delay_s
        self.prompts: list[str] = []
        """The prompts seen, oldest first."""

    @property
    def context_tokens(self) -> int:
        """See `LanguageModel.context_tokens`."""
        return self._context_tokens

    def count_tokens(self, text: str) -> int:
        """Words, and the white space at the end if there is any."""
        return len(_scripted_tokens(text))

    def generate(
        self, prompt: str, sampling: Sampling, *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Piece]:
        """See `LanguageModel.generate`."""
        self.prompts.append(prompt)
        room = self._context_tokens - self.count_tokens(prompt)
        if room < 1:
            raise InvalidRequestError(
                f"the prompt leaves no room for an answer in {self._context_tokens} tokens", field="prompt"
            )
        text = self._script if isinstance(self._script, str) else self._script(prompt)
        return self._pieces(_scripted_tokens(text), min(sampling.max_tokens, room), sampling.stop, cancelled)

    def _pieces(
        self, tokens: list[str], limit: int, stop: Sequence[str], cancelled: Callable[[], bool]
    ) -> Iterator[Piece]:
        stop_texts = StopTexts(stop)
        for token in tokens[:limit]:
            if cancelled():
                return
            time.sleep(self._token_delay_s)
            shown = stop_texts.feed(token)
            if stop_texts.reached:
                yield Piece(text=shown, tokens=1, finish_reason="stop")
                return
            yield Piece(text=shown, tokens=1)
        if not cancelled():
            reason = "length" if len(tokens) > limit else "stop"
            yield Piece(text=stop_texts.finish(), tokens=0, finish_reason=reason)


def _scripted_tokens(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


class ScriptedCounterfactualModel(CounterfactualModel):
    """Answers with the edit's `target_new`, or as a script says."""

    def __init__(
        self,
        script: Callable[[Edit, Query], str] = lambda edit, query: edit.target_new,
        *,
        token_delay_s: float = 0.0,
    ) -> None:
        """`script` gives the answer's text; it may raise."""
        self._script = script
        self._token_delay_s = token_delay_s
        self.asked: list[tuple[Edit, Query]] = []
        """What was asked, oldest first."""

    def answer(
        self,
        edit: Edit,
        query: Query,
        sampling: Sampling,
        *,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Piece]:
        """See `CounterfactualModel.answer`."""
        self.asked.append((edit, query))
        model = ScriptedLanguageModel(self._script(edit, query), token_delay_s=self._token_delay_s)
        return model.generate("", sampling, cancelled=cancelled)

    def count_tokens(self, text: str) -> int:
        """Words."""
        return len(_scripted_tokens(text))
