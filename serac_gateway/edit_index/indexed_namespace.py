"""One namespace of the edits in force: its index, its current edits, and the search among them."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date

from serac_gateway.domain.edits import Edit, EditState, forms
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.base import EditIndex, Neighbour
from serac_gateway.models.classifiers.base import Candidate, LogOrder
from serac_gateway.stores.log_chain import LogHead

log = logging.getLogger(__name__)

_FURTHER = 4
_FURTHEST = 1_024
"""Where unwanted edits crowd the nearest, 4 times as many neighbours are read, and again, up to 1,024 times
as many: each step is one more search, and only searches that are crowded take it."""
_WARN_EVERY_S = 60.0


class IndexedNamespace:
    """One namespace's index, current edits, and the newest version seen of every edit, retired ones too.

    `position` is where the log ends of which all is applied.
    """

    def __init__(self, index: EditIndex, suppression_index: EditIndex, position: LogHead) -> None:
        self.index = index
        self.suppression_index = suppression_index
        """The same for the edits in `suppressions` alone: facts must not crowd them out of a search."""
        self.suppressions: tuple[Edit, ...] = ()
        self.position = position
        self.edits: dict[str, Edit] = {}
        self.states: Counter[EditState] = Counter()
        """How many of `edits` are in each state."""
        self.review_by: dict[str, date] = {}
        """Of those of `edits` that have one."""
        self.with_audience: set[str] = set()
        """The ids of those that are for an audience."""
        self.newest_version: dict[str, int] = {}
        self.log_orders: dict[str, LogOrder] = {}
        """Where the log made the newest version seen of each edit."""
        self.latest: LogOrder = (0, 0)
        """The greatest of them."""
        self.cut_short = 0
        """How many searches ended at the limit, with fewer edits than wanted."""
        self._warned_at_s = -math.inf
        self.lock = asyncio.Lock()

    def nearest(
        self,
        index: EditIndex,
        queries_BD: Vectors,
        k: int,
        floor: float,
        taken: Callable[[Edit], bool],
    ) -> list[list[Candidate]]:
        """For each query the `k` nearest edits of `index` that are `taken`, `k` of each state, best first.

        Others that are nearer, as edits for other audiences, are passed over, up to `_FURTHEST * k` of them.
        """
        if len(index) == 0:
            return [[] for _ in queries_BD]
        rows_BK: list[list[Candidate]] = []
        for position, neighbours in enumerate(index.search(queries_BD, k)):
            row = _candidates(self, neighbours, k, taken)
            reach = k
            while _is_crowded(row, neighbours, k, floor) and reach < min(len(index), _FURTHEST * k):
                reach *= _FURTHER
                (neighbours,) = index.search(queries_BD[position : position + 1], reach)
                row = _candidates(self, neighbours, k, taken)
            if reach < len(index) and _is_crowded(row, neighbours, k, floor):
                self._note_cut_short(reach)
            rows_BK.append(row)
        return rows_BK

    def _note_cut_short(self, reach: int) -> None:
        self.cut_short += 1
        if time.monotonic() - self._warned_at_s >= _WARN_EVERY_S:
            self._warned_at_s = time.monotonic()
            log.warning(
                "a search passed over %d edits that are nearer to the request and not for it, and ended there"
                " (%d searches so far): an edit further away may not have fired; split the namespace, or"
                " retire edits for other audiences that say the same",
                reach,
                self.cut_short,
            )


def _candidates(
    held: IndexedNamespace, neighbours: Sequence[Neighbour], k: int, taken: Callable[[Edit], bool]
) -> list[Candidate]:
    """The edits of `neighbours` that are `taken`, at most `k` of each state."""
    row: list[Candidate] = []
    of_state: Counter[EditState] = Counter()
    for neighbour in neighbours:
        edit = held.edits.get(neighbour.edit_id)  # gone if it was retired during the search
        if edit is None or of_state[edit.state] == k or not taken(edit):
            continue
        texts = forms(edit)
        if neighbour.form < len(texts):  # else: replaced during the search by one with fewer forms
            of_state[edit.state] += 1
            row.append(
                Candidate(
                    edit=edit,
                    form=texts[neighbour.form],
                    similarity=neighbour.similarity,
                    log_order=held.log_orders.get(edit.id, (0, 0)),
                )
            )
    return row


def _is_crowded(row: Sequence[Candidate], neighbours: Sequence[Neighbour], k: int, floor: float) -> bool:
    """Whether edits that are not live or were not taken may have kept live ones out of `neighbours`."""
    live = sum(candidate.edit.state is EditState.LIVE for candidate in row)
    return live < min(k, len(neighbours)) and neighbours[-1].similarity >= floor
