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


def shared_names(left: str, right: str) -> bool:
    """Whether two texts share a capitalised word that is no common opening of a sentence."""

    def names(text: str) -> set[str]:
        words = re.findall(r"\w+", text)
        return {
            w.casefold()
            for i, w in enumerate(words)
            if w[:1].isupper() and (i > 0 or len(words) < 3 or not w.islower())
        } - _OPENINGS

    return bool(names(left) & names(right))


_OPENINGS = frozenset(
    ("what", "who", "where", "when", "which", "how", "the", "in", "is", "of", "whose", "why", "whom", "to",
     "for", "did", "does", "was", "are", "a", "on", "at", "by")
)  # fmt: skip
