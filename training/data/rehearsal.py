"""Pairs of our own shipped material, trained beside a user's own so that general ability stays.

Replaying what was learned before is the simplest remedy for forgetting it (Robins 1995, "Catastrophic
forgetting, rehearsal and pseudorehearsal"). Needs no public data.
"""

from __future__ import annotations

import random

from training.data.contrasts import contrast_pairs, load_contrast_sets
from training.data.pairs import Pair, sentences
from training.data.requests import edits_with_queries, load_request_forms, request_pairs

REQUEST_SHARE = 0.3
"""Of the pairs: whole requests around the queries of the contrast sets."""


def rehearsal_pairs(rng: random.Random, count: int) -> list[Pair]:
    """`count` pairs drawn from the contrast sets that training may read, and from the request forms."""
    sets = load_contrast_sets()
    around = [pair.text for pair in contrast_pairs(sets, rng, [], rounds=1) if not pair.in_scope]
    statements = [text for text in sentences(around) if "?" not in text and "？" not in text]
    questions = [text for text in around if text.endswith("?") and len(text) < 120]
    pairs = list(contrast_pairs(sets, rng, statements, rounds=2))
    requests = request_pairs(
        edits_with_queries(pairs), load_request_forms(), rng,
        passages=statements, unrelated=questions, count=round(count * REQUEST_SHARE),
    )  # fmt: skip
    made = list(requests)
    made += rng.sample(pairs, min(len(pairs), count - len(made)))
    rng.shuffle(made)
    return made
