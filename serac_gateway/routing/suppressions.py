"""Finds the suppression in whose scope a passage of a request is, wherever in the request it stands."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from serac_gateway.domain.edits import Edit, wordings
from serac_gateway.domain.passages import SpokenText, likeliest_passages, plain, topic_stems
from serac_gateway.domain.queries import Query
from serac_gateway.edit_index.source import EditSource
from serac_gateway.models.classifiers.base import Candidate, Classification, ScopeClassifier
from serac_gateway.models.encoders.base import Encoder

MAX_PAIRS = 32
"""The most passages of a request that are classified, most similar first; 3 ms each."""
_ENDINGS = " .!?…。！？"
"""What a client that shows or sends a refusal again may leave out."""


class SuppressionMatch(msgspec.Struct, frozen=True, kw_only=True):
    """A passage in the scope of a suppression."""

    passage: str
    candidate: Candidate
    classification: Classification
    classify_s: float
    """Time that the classifier took for all passages."""


class SuppressionSearch:
    """Reads texts of any length at bounded cost: see domain/passages.py. Sync and thread-safe."""

    def __init__(
        self, *, encoder: Encoder, edits: EditSource, classifier: ScopeClassifier, limit: int
    ) -> None:
        """At most `limit` suppressions are considered for a passage."""
        self._encoder = encoder
        self._edits = edits
        self._classifier = classifier
        self._limit = limit
        self._stems_of: dict[str, tuple[tuple[Edit, ...], frozenset[str]]] = {}

    def first_in_scope(
        self,
        namespace: str,
        texts: Sequence[SpokenText],
        *,
        threshold: float,
        caller: str | None,
        without: str = "",
    ) -> SuppressionMatch | None:
        """The most similar pair of passage and suppression whose probability reaches `threshold`.

        A passage equal to `without` is left out. Canaries are applied by `caller`.

        Raises:
            ModelUnavailableError: Encoder or classifier failed.
        """
        suppressions = self._edits.suppressions(namespace)
        passages = [
            passage
            for passage in likeliest_passages(texts, self._stems(namespace, suppressions))
            if passage.text != without
        ]
        if not suppressions or not passages:
            return None
        floor = self._classifier.similarity_floor
        vectors_PD = self._encoder.encode([passage.text for passage in passages])
        rows_P = self._edits.suppression_candidates(namespace, vectors_PD, self._limit, floor=floor)
        pairs = [
            (Query(text=passage.text), candidate)
            for passage, row in zip(passages, rows_P, strict=True)
            for candidate in row
            if candidate.similarity >= floor
            and candidate.edit.is_applied_to(caller)
            and not _is_refusal(passage.reply, candidate.edit)
        ]
        pairs.sort(key=lambda pair: -pair[1].similarity)
        begun = time.perf_counter()
        for query, candidate in pairs[:MAX_PAIRS]:
            (classification,) = self._classifier.classify(query, [candidate])
            if classification.scope_probability >= threshold:
                return SuppressionMatch(
                    passage=query.text,
                    candidate=candidate,
                    classification=classification,
                    classify_s=time.perf_counter() - begun,
                )
        return None

    def _stems(self, namespace: str, suppressions: tuple[Edit, ...]) -> frozenset[str]:
        """What the words of the suppressions begin with, computed once for each set of them."""
        known = self._stems_of.get(namespace)
        if known is None or known[0] is not suppressions:
            stems = topic_stems(wording for edit in suppressions for wording in wordings(edit))
            known = self._stems_of[namespace] = (suppressions, stems)
        return known[1]


def _is_refusal(reply: str | None, edit: Edit) -> bool:
    """Whether `reply` gives the refusal of the suppression, be it without its full stop."""
    if reply is None:
        return False
    refusal = plain(" ".join(edit.target_new.split()))
    unended = refusal.rstrip(_ENDINGS)
    return (unended or refusal) in plain(" ".join(reply.split()))
