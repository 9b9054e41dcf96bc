"""Takes the query out of a request: the text on which the scope decision is made."""

from __future__ import annotations

import msgspec

MAX_QUERY_CHARS = 2_000
"""The query is cut to this before anything tokenises it (a 108 KB text takes 49 ms)."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """The user text a decision is made on."""

    text: str
    """The text parts of the last user turn, at most MAX_QUERY_CHARS characters."""
    context: tuple[str, ...] = ()
    """Earlier turns, oldest first, if the last one may not stand alone; each cut likewise."""
