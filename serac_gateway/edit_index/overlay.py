"""The edits in force together with one more, as if that were stored and live."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import numpy as np

from serac_gateway.domain.audiences import NO_LABELS, Labels
from serac_gateway.domain.edits import Edit, EditKind, EditState, forms
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.source import EditSource
from serac_gateway.models.classifiers.base import Candidate, LogOrder

NEWEST_OF_ALL: LogOrder = (2**63 - 1, 0)
"""Of an edit as if it were committed now."""


def as_if_live(edit: Edit) -> Edit:
    """`edit` as it would be now in state live, its window open, newer than all others."""
    return msgspec.structs.replace(
        edit, state=EditState.LIVE, valid_from=None, valid_until=None, created_at=datetime.now(UTC)
    )


class ActiveEditsOverlay(EditSource):
    """Other edits and, in its namespace, one more, which replaces the stored one of its id."""

    def __init__(
        self, others: EditSource, edit: Edit, vectors_FD: Vectors, *, log_order: LogOrder = NEWEST_OF_ALL
    ) -> None:
        """`edit` is live and in its window; `vectors_FD` are its forms'. *Shape:* (F, D)."""
        self._log_order = log_order
        self._others = others
        self._edit = edit
        self._forms = forms(edit)
        self._vectors_FD = vectors_FD

    def is_loaded(self, namespace: str) -> bool:
        """See `EditSource.is_loaded`."""
        return self._others.is_loaded(namespace)

    def count(self, namespace: str) -> int:
        """At least 1 in the namespace of the edit."""
        return self._others.count(namespace) + (namespace == self._edit.namespace)

    def has_audiences(self, namespace: str) -> bool:
        """See `EditSource.has_audiences`."""
        is_own = namespace == self._edit.namespace and bool(self._edit.audience)
        return is_own or self._others.has_audiences(namespace)

    def candidates(
        self,
        namespace: str,
        queries_BD: Vectors,
        k: int,
        *,
        floor: float = -1.0,
        labels: Labels | None = NO_LABELS,
    ) -> list[list[Candidate]]:
        """See `EditSource.candidates`."""
        # One more, since one may be the stored version of the edit, which does not count.
        rows_BK = self._others.candidates(namespace, queries_BD, k + 1, floor=floor, labels=labels)
        if namespace != self._edit.namespace:
            return [row[:k] for row in rows_BK]
        if not self._is_for(labels):
            return self._without_own(rows_BK, k)
        similarities_BF = queries_BD @ self._vectors_FD.T
        return [
            self._with_own(row, similarities_F, k)
            for row, similarities_F in zip(rows_BK, similarities_BF, strict=True)
        ]

    def suppressions(self, namespace: str) -> tuple[Edit, ...]:
        """See `EditSource.suppressions`."""
        others = self._others.suppressions(namespace)
        if namespace != self._edit.namespace:
            return others
        rest = tuple(edit for edit in others if edit.id != self._edit.id)
        return (self._edit, *rest) if self._edit.kind is EditKind.SUPPRESSION else rest

    def suppression_candidates(
        self,
        namespace: str,
        queries_BD: Vectors,
        k: int,
        *,
        floor: float = -1.0,
        labels: Labels | None = NO_LABELS,
    ) -> list[list[Candidate]]:
        """See `EditSource.suppression_candidates`."""
        rows_BK = self._others.suppression_candidates(
            namespace, queries_BD, k + 1, floor=floor, labels=labels
        )
        if namespace != self._edit.namespace:
            return [row[:k] for row in rows_BK]
        if self._edit.kind is not EditKind.SUPPRESSION or not self._is_for(labels):
            return self._without_own(rows_BK, k)
        similarities_BF = queries_BD @ self._vectors_FD.T
        return [
            self._with_own(row, similarities_F, k)
            for row, similarities_F in zip(rows_BK, similarities_BF, strict=True)
        ]

    def _is_for(self, labels: Labels | None) -> bool:
        return labels is None or self._edit.is_for(labels)

    def _without_own(self, rows_BK: list[list[Candidate]], k: int) -> list[list[Candidate]]:
        return [[other for other in row if other.edit.id != self._edit.id][:k] for row in rows_BK]

    def _with_own(self, row: list[Candidate], similarities_F: Vectors, k: int) -> list[Candidate]:
        nearest = int(np.argmax(similarities_F))
        own = Candidate(
            edit=self._edit,
            form=self._forms[nearest],
            similarity=float(similarities_F[nearest]),
            log_order=self._log_order,
        )
        others = [candidate for candidate in row if candidate.edit.id != self._edit.id]
        ranked = sorted((own, *others), key=lambda candidate: -candidate.similarity)
        live = [candidate for candidate in ranked if candidate.edit.state is EditState.LIVE]
        beyond_k = {candidate.edit.id for candidate in live[k:]}
        return [candidate for candidate in ranked if candidate.edit.id not in beyond_k]
