"""The texts of a query that are embedded, and the candidates that their vectors retrieve."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from serac_gateway.domain.audiences import NO_LABELS, Labels
from serac_gateway.domain.edits import EditState
from serac_gateway.domain.queries import Query
from serac_gateway.edit_index.source import EditSource
from serac_gateway.models.classifiers.base import Candidate
from serac_gateway.models.encoders.base import Encoder

MAX_SENTENCES = 3
"""Of a message of several sentences, this many are embedded by themselves too."""
MIN_SENTENCE_WORDS = 3
WIDEST_MARGIN = 2.0
"""Of cosines: leaves nothing out."""
UNLIKELY_CANDIDATES = 2
"""So many are read where even the nearest is unlikely: all edits are about equally far away from an unrelated
question, as most of all traffic is, and reading them takes most of the decision's time."""

_SENTENCE_END = re.compile(r"(?<=[.!?…。？！])\s+|\n+")
_QUOTED = re.compile(r"\"([^\"]+)\"|“([^“”]+)”|«([^«»]+)»|„([^„“]+)“")
_CLAUSE_END = re.compile(rf"{_SENTENCE_END.pattern}|(?<=[:;])\s+")


class Retrieved(msgspec.Struct, frozen=True, kw_only=True):
    """The candidates of a batch of queries, and the time they took."""

    candidates_B: list[list[Candidate]]
    """A row a query, in order; in a row each edit once, most similar first. A row may be empty."""
    encode_s: float
    search_s: float


def retrieve(
    namespace: str,
    queries: Sequence[Query],
    *,
    encoder: Encoder,
    edits: EditSource,
    floor: float,
    limit: int,
    labels: Labels | None = NO_LABELS,
    margin: float = WIDEST_MARGIN,
    unlikely: float = -1.0,
) -> Retrieved:
    """The candidates of each query: what `EditRouter` classifies, and what training calibrates on.

    A candidate's similarity, a cosine in -1..1, is at least `floor`, and at most `margin` below that of the
    nearest edit in its state to the same text of the query. A row has at most `limit` candidates a state, and
    at most `UNLIKELY_CANDIDATES` of a text, or a query, whose nearest edit is less similar than `unlikely`.
    Edits for other audiences than a request with `labels` is in are none; with `labels` None all are.

    Raises:
        ModelUnavailableError: The encoder failed.
    """
    begun = time.perf_counter()
    texts_B = [retrieval_texts(query) for query in queries]
    vectors_TD = encoder.encode([text for texts in texts_B for text in texts])
    encoded = time.perf_counter()
    rows_T = iter(edits.candidates(namespace, vectors_TD, limit, floor=floor, labels=labels))
    candidates_B = [
        _within(
            merged([_within(next(rows_T), margin, unlikely) for _ in texts], floor=floor, limit=limit),
            WIDEST_MARGIN,
            unlikely,
        )
        for texts in texts_B
    ]
    return Retrieved(
        candidates_B=candidates_B, encode_s=encoded - begun, search_s=time.perf_counter() - encoded
    )


def _within(row: Sequence[Candidate], margin: float, unlikely: float) -> list[Candidate]:
    kept: list[Candidate] = []
    of_state: dict[EditState, list[Candidate]] = {}
    for candidate in sorted(row, key=lambda candidate: -candidate.similarity):
        others = of_state.setdefault(candidate.edit.state, [])
        nearest = others[0].similarity if others else candidate.similarity
        is_full = nearest < unlikely and len(others) >= UNLIKELY_CANDIDATES
        if candidate.similarity >= nearest - margin and not is_full:
            others.append(candidate)
            kept.append(candidate)
    return kept


def retrieval_texts(query: Query) -> list[str]:
    """The texts to embed for `query`: whole, with its earlier turns, and its likeliest sentences alone.

    One vector of a long message says little of the one question in it: behind CounterFact's noise the right
    edit is among the nearest eight of 100,000 far more often by the last sentence (training/LOG.md).
    """
    texts = [query.text]
    if query.context:
        texts.append(" ".join((*query.context, query.text)))
    return [*texts, *_likeliest(_SENTENCE_END.split(query.text))]


def merged(rows: Iterable[Sequence[Candidate]], *, floor: float, limit: int) -> list[Candidate]:
    """The candidates that several texts of one query retrieved, each edit once, most similar first.

    An edit keeps its highest similarity; those below `floor` and of each state those beyond `limit` are left
    out: an edit on trial takes no live one's place.
    """
    best: dict[str, Candidate] = {}
    for row in rows:
        for candidate in row:
            known = best.get(candidate.edit.id)
            if candidate.similarity >= floor and (known is None or candidate.similarity > known.similarity):
                best[candidate.edit.id] = candidate
    of_state: Counter[EditState] = Counter()
    kept: list[Candidate] = []
    for candidate in sorted(best.values(), key=lambda candidate: -candidate.similarity):
        of_state[candidate.edit.state] += 1
        if of_state[candidate.edit.state] <= limit:
            kept.append(candidate)
    return kept


def segments(text: str) -> list[str]:
    """Quotations, then the likeliest sentences and clauses; none if `text` is a single clause."""
    quoted = [next(filter(None, match.groups())) for match in _QUOTED.finditer(text)]
    long_enough = [quotation for quotation in quoted if len(quotation.split()) >= MIN_SENTENCE_WORDS]
    return [*long_enough, *_likeliest(_CLAUSE_END.split(text))][:MAX_SENTENCES]


def _likeliest(pieces: Sequence[str]) -> list[str]:
    """Questions first, then the last, then the first; none if there is but one piece."""
    sentences = [" ".join(piece.split()) for piece in pieces]
    sentences = [s for s in sentences if s]
    if len(sentences) < 2:
        return []
    long_enough = [i for i, s in enumerate(sentences) if len(s.split()) >= MIN_SENTENCE_WORDS]
    last = len(sentences) - 1
    ranked = sorted(long_enough, key=lambda i: (not sentences[i].endswith(("?", "？")), last - i if i else 1))
    return [sentences[i] for i in ranked[:MAX_SENTENCES]]
