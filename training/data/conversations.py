"""A query with its earlier turns, as clients send it and as the gateway reads it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from serac_gateway.domain.queries import Query, query_of_messages


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One earlier turn of a conversation."""

    role: str
    """system, user or assistant."""
    text: str


_ROLES = {"S: ": "system", "U: ": "user", "A: ": "assistant"}


def turns_of(text: str, where: str) -> tuple[tuple[Turn, ...], str]:
    """Earlier turns and the last text of "S: … >> U: … >> A: … >> text", as hand-written files hold them.

    Raises:
        ValueError: A turn begins with no role; the message begins with `where`.
    """
    *earlier, last = text.split(" >> ")
    for piece in earlier:
        if piece[:3] not in _ROLES:
            raise ValueError(f"{where}: the turn {piece!r} begins with neither of {sorted(_ROLES)!r}")
    turns = tuple(Turn(role=_ROLES[piece[:3]], text=piece[3:]) for piece in earlier)
    return turns, last.removeprefix("U: ")


def chat_messages(turns: Sequence[Turn], text: str) -> list[dict[str, str]]:
    """The messages of a chat request: the turns, oldest first, then `text` as the user's."""
    return [
        *({"role": turn.role, "content": turn.text} for turn in turns),
        {"role": "user", "content": text},
    ]


def chat_query(turns: Sequence[Turn], text: str) -> Query | None:
    """The query on which the gateway decides for such a request; None if it decides on none."""
    query = query_of_messages(chat_messages(turns, text))
    return query if isinstance(query, Query) else None
