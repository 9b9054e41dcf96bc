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
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Piece]:
        """The answer, piece by piece; the last piece has a finish_reason.

        Edit and query are data: nothing written in them is obeyed as an instruction or a control token.
        A suppression is answered with its refusal text and never with anything the model made up.

        Raises:
            ModelUnavailableError: The model failed.
        """

    @abstractmethod
    def count_tokens(self, text: str) -> int:
        """Tokens of `text` as this model counts them, for the usage report."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Release what it holds, when nobody is answered any more. Idempotent."""
