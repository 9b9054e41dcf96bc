"""The edits in force in this process: derived from the store, held in memory, searched at every request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from serac_gateway.classifiers.base import Candidate
from serac_gateway.edits import DECIDED_STATES, Edit, forms
from serac_gateway.encoders.base import Encoder
from serac_gateway.indexes.base import EditIndex
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import FormVectors, StoredEdit
from serac_gateway.vectors import Vectors

log = logging.getLogger(__name__)

_LOAD_BATCH = 1_000


class _Namespace:
    """One namespace's index, current edits, and the newest version seen of every edit, retired ones too."""

    def __init__(self, index: EditIndex) -> None:
        self.index = index
        self.edits: dict[str, Edit] = {}
        self.newest_version: dict[str, int] = {}
        self.lock = asyncio.Lock()


class LiveEdits:
    """Current edits and their index, by namespace.

    `candidates` is sync and may run on any thread at any time; the rest belongs to the event loop.
    """

    def __init__(self, *, store: EditStore, encoder: Encoder, make_index: Callable[[], EditIndex]) -> None:
        self._store = store
        self._encoder = encoder
        self._make_index = make_index
        self._namespaces: dict[str, _Namespace] = {}
        self.loaded = False
        """Whether `load` has ended: before, an edit that is not found may yet come."""

    async def load(self, on_progress: Callable[[int], None] = lambda count: None) -> int:
        """Rebuild everything from the store, and return the number of edits.

        Stored vectors are used as they are. Those of another encoder cannot be compared with this one's:
        such edits are encoded anew, in memory, with one warning a namespace.

        Raises:
            StoreUnavailableError: The store failed.
        """
        total = 0
        for namespace in await self._store.namespaces():
            batch: list[StoredEdit] = []
            reencoded = 0
            async for stored in self._store.snapshot(namespace):
                batch.append(stored)
                reencoded += stored.vectors.fingerprint != self._encoder.fingerprint
                if len(batch) == _LOAD_BATCH:
                    total += len(batch)
                    await self.apply(namespace, batch)
                    batch = []
                    on_progress(total)
            total += len(batch)
            await self.apply(namespace, batch)
            on_progress(total)
            if reencoded:
                log.warning(
                    "namespace %s: %d edits had vectors of another encoder and were encoded anew with %s",
                    namespace, reencoded, self._encoder.fingerprint,
                )  # fmt: skip
        self.loaded = True
        return total

    async def apply(self, namespace: str, changes: Sequence[StoredEdit]) -> None:
        """Take committed versions into force; when it returns, every later search sees them.

        Versions older than one already seen are ignored, so replays and reordering do no harm.
        """
        held = self._namespaces.get(namespace)
        if held is None:
            held = self._namespaces.setdefault(namespace, _Namespace(self._make_index()))
        async with held.lock:
            await asyncio.to_thread(self._apply_locked, held, changes)

    def candidates(self, namespace: str, queries_BD: Vectors, k: int) -> list[list[Candidate]]:
        """For each query the `k` nearest edits in force now, best first. An unknown namespace has none."""
        held = self._namespaces.get(namespace)
        if held is None or len(held.index) == 0:
            return [[] for _ in queries_BD]
        now = datetime.now(UTC)
        found_BK: list[list[Candidate]] = []
        for neighbours in held.index.search(queries_BD, k):
            row = []
            for neighbour in neighbours:
                edit = held.edits.get(neighbour.edit_id)  # gone if it was retired during the search
                if edit is None or not edit.is_in_force(now):
                    continue
                texts = forms(edit)
                if neighbour.form < len(texts):  # else: replaced during the search by one with fewer forms
                    row.append(
                        Candidate(edit=edit, form=texts[neighbour.form], similarity=neighbour.similarity)
                    )
            found_BK.append(row)
        return found_BK

    def current(self, namespace: str, edit_id: str) -> Edit | None:
        """The version in force in this process, None if the edit is unknown or retired. For any thread."""
        held = self._namespaces.get(namespace)
        return None if held is None else held.edits.get(edit_id)

    def all(self, namespace: str) -> list[Edit]:
        """The edits in force in this process, in no order. For the event loop."""
        held = self._namespaces.get(namespace)
        return [] if held is None else list(held.edits.values())

    def count(self, namespace: str) -> int:
        """How many edits of the namespace are indexed."""
        held = self._namespaces.get(namespace)
        return 0 if held is None else len(held.edits)

    def _apply_locked(self, held: _Namespace, changes: Sequence[StoredEdit]) -> None:
        live: dict[str, tuple[Edit, FormVectors]] = {}
        gone: set[str] = set()
        for stored in changes:
            edit = stored.edit
            if edit.version <= held.newest_version.get(edit.id, 0):
                continue
            held.newest_version[edit.id] = edit.version
            if edit.state not in DECIDED_STATES:
                live.pop(edit.id, None)
                gone.add(edit.id)
            else:
                gone.discard(edit.id)
                live[edit.id] = (edit, stored.vectors)
        held.edits.update({edit_id: edit for edit_id, (edit, _) in live.items()})
        held.index.put((edit_id, self._vectors(edit, vectors)) for edit_id, (edit, vectors) in live.items())
        held.index.remove(gone)
        for edit_id in gone:
            held.edits.pop(edit_id, None)

    def _vectors(self, edit: Edit, vectors: FormVectors) -> Vectors:
        if vectors.fingerprint == self._encoder.fingerprint:
            return vectors.vectors_FD
        return self._encoder.encode(forms(edit))
