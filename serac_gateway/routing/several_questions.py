"""Whether a message asks for more than one edit gives, by what the models make of its parts.

A question about one thing stays about as far from the edit when it is cut; a second question takes the whole
away from it. So a part that is much nearer to the edit than the whole is says that the rest of the whole asks
for something else. This needs no words and no language, but embeddings: only messages in scope are cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from serac_gateway.domain.edits import Edit
from serac_gateway.domain.parts import cuts, weight
from serac_gateway.domain.queries import MAX_CONTEXT_CHARS, MAX_CONTEXT_TURNS, Query
from serac_gateway.models.encoders.base import Encoder

FIRST_CUTS = 2
"""Of one text, evenly spread: if no side of them is nearer to the edit than the whole, no other is tried."""
CUT = 0.85
"""The most that the cosine of the whole is of that of its part, if the text is cut there for two edits."""
PERHAPS = 0.1
"""The least probability of another edit for a whole that is cut for two; that of an edit that is not meant is
about .03, and cutting takes some ten embeddings."""
ASKS_MORE = 0.7
"""The same, if a rest that no edit answers is to count as a question though it has no mark of one.

Of 260 questions of one sentence .4 % would be cut so, of 120 made by joining two 25 %; with .8 instead
1.9 % and 46 % (training/LOG.md)."""
MARKED_ASKS_MORE = 0.92
"""The same for a rest with a question mark or a number, which is a question more likely than not."""
LEAST_QUESTION = 24
"""Letters of a rest without a question mark that counts as a question."""
SHORTEST_REST = 12
"""Letters that a text has more than the edit that answers it, if it holds another question."""


class PartialAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What one of several edits answers of a request."""

    edit: Edit
    query: Query
    """Its part of the request, with the parts before as earlier turns."""


def part_queries(query: Query, texts: Sequence[str]) -> list[Query]:
    """A query for each part of `query`: what stands before it is read as its earlier turns."""
    queries: list[Query] = []
    for place, text in enumerate(texts):
        before = (*query.context, *(each[:MAX_CONTEXT_CHARS] for each in texts[:place]))
        queries.append(Query(text=text, context=before[-MAX_CONTEXT_TURNS:], instructions=query.instructions))
    return queries


def cut_near(
    text: str, form: str, encoder: Encoder, *, share: float, known: float = -1.0
) -> tuple[str, str] | None:
    """`text` in two parts, of which one is much nearer to `form` than the whole; None: it has no such place.

    Much nearer: the cosine of the whole is below `share` of that of the part, in 0..1. Where the whole is
    `known` to be so near that no part can be, nothing is embedded; -1: it is not known.

    Raises:
        ModelUnavailableError: The encoder failed.
    """
    places = cuts(text)
    if not places or weight(text) < weight(form) + SHORTEST_REST or known >= share:
        return None
    first_2D = encoder.encode([form, text])
    form_D, of_whole = first_2D[0], float(first_2D[1] @ first_2D[0])
    if of_whole >= share:  # no part can be so much nearer
        return None
    step = max(1, len(places) // (FIRST_CUTS + 1))
    best, nearest = _nearest_cut(text, places, range(step - 1, len(places), step), form_D, encoder)
    if nearest <= of_whole:
        return None
    while step > 1:
        step = -(-step // 2) if step > 2 else 1
        beside = [at for at in (best - step, best + step) if 0 <= at < len(places)]
        at, similarity = _nearest_cut(text, places, beside, form_D, encoder)
        if similarity > nearest:
            best, nearest = at, similarity
    if not takes_away(of_whole, nearest, share):
        return None
    return text[: places[best]].strip(), text[places[best] :].strip()


def _nearest_cut(
    text: str, places: Sequence[int], ats: Sequence[int], form_D: NDArray[np.float32], encoder: Encoder
) -> tuple[int, float]:
    """Of the cuts at `ats` in `places`, the one with the side nearest to a form, and that side's cosine."""
    sides = [side for at in ats for side in (text[: places[at]], text[places[at] :])]
    if not sides:
        return 0, -1.0
    similarities_T = encoder.encode(sides) @ form_D
    best = int(np.argmax(similarities_T))
    return ats[best // 2], float(similarities_T[best])


def is_in_one_part(parts: Sequence[str], whole: str, form: str, encoder: Encoder) -> bool:
    """Whether no part of `whole`, which is in scope by `form`, is much nearer to it: it asks for one thing.

    Raises:
        ModelUnavailableError: The encoder failed.
    """
    vectors_TD = encoder.encode([form, whole, *parts])
    of_whole, *of_parts = (vectors_TD[1:] @ vectors_TD[0]).tolist()
    return not takes_away(of_whole, max(of_parts), MARKED_ASKS_MORE)


def asks_more(part: str, whole: str, form: str, encoder: Encoder, *, marked: bool) -> bool:
    """Whether the rest of `whole` beside `part`, which is in scope by `form`, asks for something else.

    Raises:
        ModelUnavailableError: The encoder failed.
    """
    vectors_3D = encoder.encode([form, part, whole])
    of_part, of_whole = float(vectors_3D[1] @ vectors_3D[0]), float(vectors_3D[2] @ vectors_3D[0])
    return takes_away(of_whole, of_part, MARKED_ASKS_MORE if marked else ASKS_MORE)


def takes_away(of_whole: float, of_part: float, share: float) -> bool:
    """Whether a whole is so much farther from the edit than its part; both are cosines, -1..1."""
    return of_part > 0 and of_whole < share * of_part
