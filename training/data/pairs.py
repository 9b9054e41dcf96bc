"""A pair (edit, query, in scope or not), the unit that the cross-encoder is trained on."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One training example."""

    prompt: str
    target: str
    text: str
    """The query."""
    in_scope: bool
    kind: str
    """Where it comes from, for reports: "paraphrase", "same subject", …"""
    context: tuple[str, ...] = ()
    instructions: str = ""
    """The system prompt of the request."""
    subject: str | None = None
    """Of the edit, where it is known."""


_MULTI_HOP_KINDS = frozenset({"multi-hop", "knowedit multi-hop"})
_UNCLEAR_KINDS = ("discussion", "task", "quote", "instruction", "counterfact generation", "qqp", "paws")


def depends_on_edit(*, in_scope: bool, kind: str) -> bool | None:
    """Whether a right answer depends on the edit: in scope, or a step beyond it; None: unclear."""
    plain = kind.removeprefix("contrast, ")
    if in_scope or plain in _MULTI_HOP_KINDS:
        return True
    return None if plain.startswith(_UNCLEAR_KINDS) else False


def sentences(texts: Sequence[str], *, shortest: int = 25, longest: int = 220) -> list[str]:
    """The sentences of `texts` of a length that serves as noise around a question."""
    stripped = (s.strip() for text in texts for s in re.split(r"(?<=[.!?])\s+", text))
    return [s for s in stripped if shortest <= len(s) <= longest]
