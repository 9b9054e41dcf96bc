"""The words by which a counterfactual model says that the edit does not answer the query; they are seen here.

A small model that is given an edit has nothing else to say; such a query belongs to the base model. The
decision is made before any text of the answer is released: text is held as long as it may be the beginning of
those words, and that takes a handful of tokens at most.
"""

from __future__ import annotations

from typing_extensions import override

from serac_gateway.errors import AnswerDeclinedError
from serac_gateway.models.counterfactual.guardrail import AnswerGuard

TRAINED_DECLINE = "I only know this:"
"""What the trained adapter begins with, in every language, where the edit does not answer the query: training
makes its examples with this text."""
REQUESTED_DECLINE = "NOT COVERED"
"""What a model is told to answer then that was not trained on it."""


def is_decline(text: str, decline: str) -> bool | None:
    """Whether `text` begins with `decline`; None: it is too short to say.

    Letter case, white space and signs do not count: models put quotation marks and asterisks around words.
    """
    said, wanted = _letters(text), _letters(decline)
    if said.startswith(wanted):
        return True
    return None if wanted.startswith(said) else False


def can_be_declined(target: str, decline: str) -> bool:
    """Whether an answer that begins with `decline` can be no beginning of `target`."""
    return is_decline(target, decline) is False


def declined(edit_id: str) -> AnswerDeclinedError:
    """The error of a model that declines to answer from the edit of that id."""
    return AnswerDeclinedError(
        f"the counterfactual model finds that edit {edit_id!r} does not answer this query",
        details={"reason": "declined"},
    )


def not_followed(edit_id: str) -> AnswerDeclinedError:
    """The error of a model whose answer does not follow the instruction of that id."""
    return AnswerDeclinedError(
        f"the counterfactual model's answer does not follow the instruction {edit_id!r}",
        details={"reason": "instruction not followed"},
    )


def not_in_form(edit_id: str) -> AnswerDeclinedError:
    """The error of an answer from the edit of that id that cannot have the form that the request wants."""
    return AnswerDeclinedError(
        f"what edit {edit_id!r} says cannot be put into the form that the request wants",
        details={"reason": "form"},
    )


class DecliningGuard(AnswerGuard):
    """Holds text until it is known to be no decline; another guard decides on it from then on."""

    def __init__(self, guard: AnswerGuard, *, decline: str, edit_id: str) -> None:
        """An answer that begins with `decline` raises AnswerDeclinedError."""
        self._guard = guard
        self._decline = decline
        self._edit_id = edit_id
        self._held: str | None = ""
        """None: it is no decline."""

    @override
    def feed(self, text: str) -> str:
        """See `AnswerGuard.feed`.

        Raises:
            AnswerDeclinedError: The answer is a decline; nothing of it has been released.
        """
        if self._held is None:
            return self._passed(text)
        self._held += text
        verdict = is_decline(self._held, self._decline)
        if verdict:
            raise declined(self._edit_id)
        return "" if verdict is None else self._released()

    @override
    def finish(self) -> str:
        released = "" if self._held is None else self._released()
        released += self._guard.finish()
        self.ended = True
        return released

    def _released(self) -> str:
        held, self._held = self._held or "", None
        return self._passed(held)

    def _passed(self, text: str) -> str:
        released = self._guard.feed(text)
        self.ended = self._guard.ended
        return released


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))
