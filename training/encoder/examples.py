"""What the encoder learns from: an edit as it is indexed, and the texts by which a request finds it.

They are made of the pairs that the scope classifier is trained on, so nothing is seen here that is held out
there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec

from serac_gateway.domain.queries import Query
from serac_gateway.routing.retrieval import retrieval_texts
from training.data.pairs import Pair, depends_on_edit
from training.runs import TrainingError


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One edit with a request in its scope."""

    prompt: str
    form: str
    """Prompt or statement, one of the texts under which the edit is indexed."""
    requests: tuple[str, ...]
    """The texts by which the index is searched for the request; the nearest of them counts."""
    negative: str | None = None
    """A request out of the edit's scope, mostly a near one."""


class EditPairs(msgspec.Struct, frozen=True, kw_only=True):
    """The pairs of one edit prompt."""

    in_scope: tuple[Pair, ...]
    out_of_scope: tuple[Pair, ...]


def by_prompt(pairs: Sequence[Pair]) -> dict[str, EditPairs]:
    """The pairs by the prompt of their edit, prompts in order; those with no request in scope are left out.

    Out of scope are only requests that want something else than the edit says: where the edit's question is
    the material of another task, text and edit are rightly near.
    """
    inside: dict[str, list[Pair]] = {}
    outside: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.in_scope:
            inside.setdefault(pair.prompt, []).append(pair)
        elif _asks_something_else(pair):
            outside.setdefault(pair.prompt, []).append(pair)
    return {
        prompt: EditPairs(in_scope=tuple(inside[prompt]), out_of_scope=tuple(outside.get(prompt, ())))
        for prompt in sorted(inside)
    }


def _asks_something_else(pair: Pair) -> bool:
    is_plain = not pair.context and not pair.instructions and not pair.kind.startswith("request")
    return is_plain and depends_on_edit(in_scope=pair.in_scope, kind=pair.kind) is False


def batches(
    pairs: Sequence[Pair],
    *,
    steps: int,
    batch_size: int,
    neighbours: int,
    statement_share: float,
    negative_share: float,
    seed: int,
) -> list[list[Example]]:
    """`steps` batches, the same by seed; every prompt once, with one request, before any comes again.

    A batch has runs of `neighbours` edits that follow each other in alphabetical order: mostly the same
    question about other subjects, or other questions about the same one, the negatives that teach most.

    Raises:
        TrainingError: There are not two edits with a request in scope.
    """
    edits = by_prompt(pairs)
    if len(edits) < 2:
        raise TrainingError(
            f"{len(edits)} edits with a request in scope; an encoder learns to tell edits apart, so give more"
        )
    rng = random.Random(seed)
    drawn = _prompts(list(edits), neighbours, rng)
    return [
        [
            _example(prompt, edits[prompt], statement_share, negative_share, rng)
            for prompt in dict.fromkeys(islice(drawn, min(batch_size, len(edits))))
        ]
        for _ in range(steps)
    ]


def _prompts(prompts: Sequence[str], neighbours: int, rng: random.Random) -> Iterator[str]:
    while True:
        begin = -rng.randrange(neighbours)  # other runs each time
        starts = list(range(begin, len(prompts), neighbours))
        rng.shuffle(starts)
        for start in starts:
            yield from prompts[max(0, start) : max(0, start + neighbours)]


def _example(
    prompt: str, edit: EditPairs, statement_share: float, negative_share: float, rng: random.Random
) -> Example:
    pair = rng.choice(edit.in_scope)
    has_negative = bool(edit.out_of_scope) and rng.random() < negative_share
    is_statement = rng.random() < statement_share
    return Example(
        prompt=prompt,
        form=f"{prompt.strip()} {pair.target.strip()}" if is_statement else prompt,
        requests=searched_texts(pair),
        negative=rng.choice(edit.out_of_scope).text if has_negative else None,
    )


def searched_texts(pair: Pair) -> tuple[str, ...]:
    """The texts that retrieval embeds for the request; after earlier turns the last alone is too little."""
    texts = retrieval_texts(Query(text=pair.text, context=pair.context))
    return tuple(dict.fromkeys(texts[1:] if pair.context else texts))
