"""The seam to the scope classifier: P(query in scope of edit)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from serac_gateway.domain.edits import Edit
from serac_gateway.domain.queries import Query


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An edit that the index returned, before classification."""

    edit: Edit
    form: str
    """The form of the edit that lies nearest to the query."""
    similarity: float
    """Cosine of query and form, -1..1."""


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """What the classifier says of a query and a candidate."""

    scope_probability: float
    """P(the edit, with its new answer, answers the query), 0..1."""
    depends_probability: float | None = None
    """P(a right answer depends on the edit, as that of a next step does), 0..1; None: it cannot say."""


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

    @property
    def depends_threshold(self) -> float | None:
        """A right answer depends on the edit iff depends_probability >= this; None: it cannot say."""
        return None

    @abstractmethod
    def classify(self, query: Query, candidates: Sequence[Candidate]) -> list[Classification]:
        """One classification a candidate, in the order given; no candidates give an empty list.

        Raises:
            ModelUnavailableError: The model failed.
        """

    def can_reach_threshold(
        self,
        query: Query,
        candidate: Candidate,
        scope_threshold: float,
        depends_threshold: float | None = None,
    ) -> bool:
        """Whether `classify` could find `candidate` in scope or depended on. Cheap; never wrongly False.

        `depends_threshold` None: nobody asks whether an answer depends on it.
        """
        return True


class PairModel(Protocol):
    """What reads pairs of texts. Thread-safe."""

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """The logits of each pair (edit text, query text), in order: in scope, and depends on the edit.

        *Shape:* (K, 2), or (K, 1) of weights that were taught the first question alone; without pairs empty.
        """
        ...
