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

LogOrder = tuple[int, int]
"""The two numbers of a log id."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An edit that the index returned, before classification."""

    edit: Edit
    form: str
    """The edit's form that is most similar to the query."""
    similarity: float
    """Cosine of query and form, -1..1."""
    log_order: LogOrder = (0, 0)
    """Where the log made the edit's version: a later one is newer, whatever the clocks of gateways said."""


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """The classifier's probabilities for a query and a candidate."""

    scope_probability: float
    """P(the edit, with its new answer, answers the query), 0..1."""
    depends_probability: float | None = None
    """P(a right answer depends on the edit, as in a follow-up step), 0..1; None: it has no such output."""


class ScopeClassifier(ABC):
    """Estimates the probability that each candidate governs the query.

    Sync and thread-safe. The threshold is calibrated with the weights; all data share it.
    """

    @property
    @abstractmethod
    def scope_threshold(self) -> float:
        """In scope iff scope_probability >= this. In 0..1."""

    @property
    def suppression_threshold(self) -> float | None:
        """The same for suppressions, of which leaks cost more than refusals; None: theirs is the same."""
        return None

    @property
    @abstractmethod
    def similarity_floor(self) -> float:
        """Recall-tuned, -1..1: a candidate less similar than this is out of scope without classification."""

    @property
    def similarity_margin(self) -> float:
        """A candidate this much less similar than the nearest is not read, 0..2; 2: all are."""
        return 2.0

    @property
    def unlikely_similarity(self) -> float:
        """Where the nearest candidate is less similar than this, -1..1, hardly any is right."""
        return -1.0

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Identifies weights and calibration, for logs and reports."""

    @property
    def depends_threshold(self) -> float | None:
        """A right answer depends on the edit iff depends_probability >= this; None: it has no such output."""
        return None

    @abstractmethod
    def classify(self, query: Query, candidates: Sequence[Candidate]) -> list[Classification]:
        """One classification a candidate, in the order given; no candidates give an empty list.

        Raises:
            ModelUnavailableError: The model failed.
        """


class PairModel(Protocol):
    """A model that reads pairs of texts. Thread-safe."""

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """The logits of each pair (edit text, query text), in order: in scope, and depends on the edit.

        *Shape:* (K, 2), or (K, 1) of weights that were trained on scope alone; empty without pairs.
        """
        ...

    def unreadable(self, text: str) -> frozenset[str]:
        """The characters of `text` that the model cannot tell from each other, as its tokenizer has none."""
        ...
