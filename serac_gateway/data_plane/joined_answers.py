"""Several answers of the counterfactual model as one: each edit in scope of a request answers its part."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice

from serac_gateway.models.counterfactual.base import CounterfactualModel
from serac_gateway.models.counterfactual.truncation import LimitedAnswer
from serac_gateway.models.language_models.base import Piece, Sampling

SEPARATOR = "\n"
"""Between two answers."""


def joined_answers(
    answers: Sequence[Callable[[], Iterator[Piece]]], sampling: Sampling, model: CounterfactualModel
) -> Iterator[Piece]:
    """The pieces of all `answers`, one after the other, within the client's limits on the whole.

    Every answer is begun before a piece is given: so an answer that is declined is declined before the first
    byte of the reply. `sampling` has the limits of the whole; the answers bring none of the client's.

    Raises:
        AnswerDeclinedError: Instead of the first piece: one of the answers is declined.
        ModelUnavailableError: The model failed.
    """
    whole = LimitedAnswer(sampling, model)
    with ExitStack() as opened:
        begun = [_begun(answer, opened) for answer in answers]
        for place, pieces in enumerate(begun):
            if place:
                yield from whole.feed(SEPARATOR)
            for piece in pieces:
                if whole.ended:
                    break
                yield from whole.feed(piece.text)
        yield from whole.finish()


def _begun(answer: Callable[[], Iterator[Piece]], opened: ExitStack) -> Iterator[Piece]:
    pieces = answer()
    if isinstance(pieces, Generator):
        opened.callback(pieces.close)
    return chain(list(islice(pieces, 1)), pieces)
