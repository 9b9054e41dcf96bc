"""The answer to a question that a suppression covers."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from serac_gateway.data_plane.plan import AnswerTask
from serac_gateway.data_plane.protocols.answers import ChoicePiece
from serac_gateway.models.language_models.base import Piece


async def refusal_pieces(task: AnswerTask) -> AsyncGenerator[ChoicePiece, None]:
    """The text of a suppression as the answer of every choice: whole at once, without model, thread or queue.

    No limit of tokens and no stop text cuts it: a part of a refusal is none.
    """
    for choice in range(task.request.choices):
        piece = Piece(text=task.edit.target_new, tokens=task.answer_tokens, finish_reason="stop")
        yield ChoicePiece(choice=choice, piece=piece, prompt_tokens=task.prompt_tokens)
