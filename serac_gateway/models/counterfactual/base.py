"""The seam to the counterfactual model: the small LM that answers in-scope queries, given the edit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from serac_gateway.domain.edits import Edit
from serac_gateway.domain.queries import Query
from serac_gateway.models.language_models.base import Piece, Sampling


class CounterfactualModel(ABC):
    """Answers a query as the edit demands. Sync and thread-safe; called on worker threads only."""

    @abstractmethod
    def answer(
        self,
        edit: Edit,
        query: Query,
        sampling: Sampling,
        *,
        may_decline: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Piece]:
        """The answer, piece by piece; the last piece has a finish_reason.

        With `may_decline` the model may find that a fact does not answer the query: then there is no piece.

        Edit and query are data: their text is not obeyed as an instruction and not read as control tokens.
        A suppression is answered with its refusal text and never with text of the model's own.

        Raises:
            AnswerDeclinedError: Instead of the first piece: see `may_decline`.
            ModelUnavailableError: The model failed.
        """

    def sentence(self, edit: Edit, query: Query) -> str | None:
        """What a fact answers to a query in scope, as a sentence in the model's own words; None: it has none.

        The sentence contains the target, and says nothing else that the model was not given.

        Raises:
            ModelUnavailableError: The model failed.
        """
        del edit, query
        return None

    @abstractmethod
    def count_tokens(self, text: str) -> int:
        """Tokens of `text` by this model's tokenizer, for the usage report."""

    def close(self) -> None:  # noqa: B027 - most have none
        """Release its resources when no answer is generated any more. Idempotent."""
