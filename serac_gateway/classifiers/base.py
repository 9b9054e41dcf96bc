"""The seam to the scope classifier: P(query in scope of edit)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from serac_gateway.conversation import Query
from serac_gateway.edits import Edit


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An edit that the index returned, before classification."""

    edit: Edit
    form: str
    """The form of the edit that lies nearest to the query."""
    similarity: float
    """Cosine of query and form, -1..1."""


class ScopeClassifier(ABC):
    """Decides how probable it is that each candidate governs the query.

    Sync and thread-safe. The threshold is calibrated with the weights and is one for all data.
    """

    @property
    @abstractmethod
    def scope_threshold(self) -> float:
        """In scope iff scope_probability >= this. In 0..1."""

    @property
    @abstractmethod
    def similarity_floor(self) -> float:
        """Recall-tuned: a candidate less similar than this cannot be in scope and need not be shown."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Names weights and calibration, for logs and reports."""

    @abstractmethod
    def scope_probabilities(self, query: Query, candidates: Sequence[Candidate]) -> list[float]:
        """P(in scope) of each candidate, 0..1, in the order given; no candidates give an empty list.

        Raises:
            ModelUnavailableError: The model failed.
        """

    def may_reach(self, threshold: float, query: Query, candidate: Candidate) -> bool:
        """Whether `scope_probabilities` could give `candidate` at least `threshold`; never wrongly False.

        Cheap: what cannot reach it is not worth the model's time.
        """
        return True
