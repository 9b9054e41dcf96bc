"""Finds the suppression in whose scope a passage of a request is, wherever in the request it stands."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from serac_gateway.domain.audiences import Audience, Caller, Labels, audience_text, holds_for
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
        self._stems_of: dict[str, tuple[tuple[Edit, ...], list[_Stems]]] = {}

    def first_in_scope(
        self,
        namespace: str,
        texts: Sequence[SpokenText],
        *,
        threshold: float,
        caller: Caller,
        without: str = "",
    ) -> SuppressionMatch | None:
        """The most similar pair of passage and suppression whose probability reaches `threshold`.

        A passage equal to `without` is left out. Audiences and canaries go by `caller`.

        Raises:
            ModelUnavailableError: Encoder or classifier failed.
        """
        suppressions = self._edits.suppressions(namespace)
        passages = [
            passage
            for passage in likeliest_passages(texts, self._stems(namespace, suppressions, caller.labels))
            if passage.text != without
        ]
        if not suppressions or not passages:
            return None
        floor = self._classifier.similarity_floor
        vectors_PD = self._encoder.encode([passage.text for passage in passages])
        rows_P = self._edits.suppression_candidates(
            namespace, vectors_PD, self._limit, floor=floor, labels=caller.labels
        )
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

    def _stems(self, namespace: str, suppressions: tuple[Edit, ...], labels: Labels) -> frozenset[str]:
        """What the words of the suppressions for a request with `labels` begin with.

        Computed once for each set of suppressions and audience: those of others must not crowd out passages.
        """
        known = self._stems_of.get(namespace)
        if known is None or known[0] is not suppressions:
            known = self._stems_of[namespace] = (suppressions, _stems_by_audience(suppressions))
        held_for = [each.stems for each in known[1] if holds_for(each.audience, labels)]
        return held_for[0] if len(held_for) == 1 else frozenset().union(*held_for)


class _Stems(msgspec.Struct, frozen=True, kw_only=True):
    """The stems of the suppressions for one audience."""

    audience: Audience
    stems: frozenset[str]


def _stems_by_audience(suppressions: tuple[Edit, ...]) -> list[_Stems]:
    by_audience: dict[str, list[Edit]] = {}
    for edit in suppressions:
        by_audience.setdefault(audience_text(edit.audience), []).append(edit)
    return [
        _Stems(
            audience=edits[0].audience,
            stems=topic_stems(wording for edit in edits for wording in wordings(edit)),
        )
        for edits in by_audience.values()
    ]


def _is_refusal(reply: str | None, edit: Edit) -> bool:
    """Whether `reply` gives the refusal of the suppression, be it without its full stop."""
    if reply is None:
        return False
    refusal = plain(" ".join(edit.target_new.split()))
    unended = refusal.rstrip(_ENDINGS)
    return (unended or refusal) in plain(" ".join(reply.split()))
