"""The port to the edits that a request is decided with: those in force, or those and a preview's."""

from __future__ import annotations

from typing import Protocol

from serac_gateway.domain.audiences import NO_LABELS, Labels
from serac_gateway.domain.edits import Edit
from serac_gateway.domain.vectors import Vectors
from serac_gateway.models.classifiers.base import Candidate


class EditSource(Protocol):
    """The edits that requests are decided with. For any thread."""

    def is_loaded(self, namespace: str) -> bool:
        """Whether all stored edits of the namespace are here: else nobody knows what is suppressed."""
        ...

    def count(self, namespace: str) -> int:
        """How many edits of the namespace there are, in whatever window."""
        ...

    def has_audiences(self, namespace: str) -> bool:
        """See `ActiveEdits.has_audiences`."""
        ...

    def candidates(
        self,
        namespace: str,
        queries_BD: Vectors,
        k: int,
        *,
        floor: float = -1.0,
        labels: Labels | None = NO_LABELS,
    ) -> list[list[Candidate]]:
        """See `ActiveEdits.candidates`."""
        ...

    def suppressions(self, namespace: str) -> tuple[Edit, ...]:
        """See `ActiveEdits.suppressions`."""
        ...

    def suppression_candidates(
        self,
        namespace: str,
        queries_BD: Vectors,
        k: int,
        *,
        floor: float = -1.0,
        labels: Labels | None = NO_LABELS,
    ) -> list[list[Candidate]]:
        """See `ActiveEdits.suppression_candidates`."""
        ...
