"""The port to the edit index, which finds the stored edits nearest to a query."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import msgspec

from serac_gateway.domain.vectors import Vectors


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """An edit that a search returned, through the form of it that lies nearest to the query."""

    edit_id: str
    form: int
    """Position of that form in the order in which the edit's vectors were given."""
    similarity: float
    """Cosine, -1..1."""


class EditIndex(ABC):
    """Vectors of one namespace's edits, several forms an edit. Derived: rebuilt from the store at will.

    Searches may run on any number of threads at any time and never wait for a write. Writes come from one
    thread at a time (the caller's duty).
    """

    @abstractmethod
    def put(self, edits: Iterable[tuple[str, Vectors]]) -> None:
        """Index every ``(edit_id, vectors)``, replacing what was indexed under the id.

        *Shape* of vectors: (forms of that edit, D), unit length; at least one form. When `put` returns,
        every search that starts later sees all of `edits`.

        Raises:
            ValueError: Vectors of the wrong width, or none.
        """

    @abstractmethod
    def remove(self, edit_ids: Iterable[str]) -> None:
        """Forget the edits. Ids that are not indexed are ignored."""

    @abstractmethod
    def search(self, queries_BD: Vectors, k: int) -> list[list[Neighbour]]:
        """For each query the `k` nearest edits (not forms), best first; equal similarity: lower id first.

        An index of fewer than `k` edits returns them all; an empty one returns empty lists.

        Raises:
            ValueError: `k` < 1, or queries of the wrong width.
        """

    @abstractmethod
    def make_room(self) -> None:
        """Between puts of a bulk load: wait until work in the background, if any, is not too far behind.

        It bounds memory; no other writer needs to call it.
        """

    @abstractmethod
    def settle(self) -> None:
        """Wait until no work in the background is due, if there is any."""

    @abstractmethod
    def __len__(self) -> int:
        """How many edits are indexed."""

    @abstractmethod
    def __contains__(self, edit_id: str) -> bool:
        """Whether the edit is indexed."""
