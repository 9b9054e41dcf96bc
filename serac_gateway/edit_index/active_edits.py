"""The edits in force in this process: derived from the store, held in memory, searched at every request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime

import msgspec

from serac_gateway.domain.audiences import NO_LABELS, Labels
from serac_gateway.domain.edits import ACTIVE_STATES, Edit, EditKind, EditState, forms
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.base import EditIndex
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.edit_index.indexed_namespace import IndexedNamespace
from serac_gateway.edit_index.quarantine import QuarantineList
from serac_gateway.errors import DamagedRecordError, InvalidRequestError
from serac_gateway.models.classifiers.base import Candidate, LogOrder
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.checked_records import DamagedRecord, vectors_fault
from serac_gateway.stores.log_chain import LogHead, empty_head
from serac_gateway.stores.records import Committed, FormVectors, StoredEdit, log_id_order

log = logging.getLogger(__name__)

_LOAD_BATCH = 1_000


class ActiveEdits:
    """Current edits and their index, by namespace.

    `candidates` is sync and may run on any thread at any time; the rest belongs to the event loop.
    """

    def __init__(
        self,
        *,
        store: EditStore,
        encoder: Encoder,
        make_index: Callable[[], EditIndex],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`clock` is compared with validity windows at each search."""
        self._store = store
        self._clock = clock
        self._encoder = encoder
        self._make_index = make_index
        self._namespaces: dict[str, IndexedNamespace] = {}
        self._building: list[tuple[str, IndexedNamespace]] = []
        self.quarantine = QuarantineList()
        """The namespaces of which something stored cannot be read."""
        self.loaded = False
        """Whether `load` has ended: before, a missing edit may yet come."""
        self._to_load: set[str] | None = None
        """The namespaces that `load` has yet to load; None: their names are not known."""
        self.on_changed: Callable[[str | None], None] = lambda namespace: None
        """Called with the namespace whose edits have changed, before `apply` or `reload` returns; with None
        when all are loaded. It must not fail."""

    async def load(self, on_progress: Callable[[int], None] = lambda count: None) -> int:
        """Rebuild everything from the store, and return the number of edits.

        A namespace of which something cannot be read is quarantined, and the others are loaded.

        Raises:
            StoreUnavailableError: The store failed.
        """
        total = 0
        namespaces = await self._store.namespaces()
        self._to_load = set(namespaces)
        for namespace in namespaces:
            total += await self.reload(namespace, _counting_on(total, on_progress))
            self._to_load.discard(namespace)
        self.loaded = True
        self.on_changed(None)
        return total

    def is_loaded(self, namespace: str) -> bool:
        """Whether the stored edits of the namespace are loaded; also if it had none when loading began.

        Never of a quarantined one.
        """
        loaded = self.loaded or (self._to_load is not None and namespace not in self._to_load)
        return loaded and namespace not in self.quarantine

    async def reload(self, namespace: str, on_progress: Callable[[int], None] = lambda count: None) -> int:
        """Build the namespace anew from the store, put it in the place of what is there, and count its edits.

        What is there serves meanwhile, and changes applied meanwhile reach both. Stored vectors are used as
        they are. Those of another encoder cannot be compared with this one's, and damaged ones with none:
        such edits are encoded anew, in memory, with one warning. If something else cannot be read, the
        namespace enters quarantine; if everything can, it leaves it.

        Raises:
            StoreUnavailableError: The store failed; nothing has changed.
        """
        damaged: list[DamagedRecord] = []
        # The position first: what is committed during the walk comes again with the log.
        try:
            position, fault = await self._store.log_head(namespace), ""
        except DamagedRecordError as error:
            position, fault = empty_head(namespace), error.message
        building = self._new_namespace(position)
        made_by: dict[str, Committed] = {}
        self._building.append((namespace, building))
        total = 0
        try:
            async for committed in self._store.version_log_ids(namespace):
                made_by[committed.edit_id] = committed
            total = await self._build(namespace, building, on_progress, damaged, made_by)
        except (DamagedRecordError, InvalidRequestError) as error:
            fault = fault or error.message
        finally:
            self._building.remove((namespace, building))
        self._namespaces[namespace] = building
        if fault:
            self.quarantine.add(namespace, fault=fault)
        else:
            self.quarantine.note(namespace, damaged)
        self.on_changed(namespace)
        return total

    async def retry_quarantined(self) -> None:
        """Build quarantined namespaces anew whose damage was repaired, by whichever gateway.

        Raises:
            StoreUnavailableError: The store failed.
        """
        for namespace in self.quarantine.due():
            try:
                await self._store.log_head(namespace)
                await self._store.stored_many(namespace, self.quarantine.ids_to_try(namespace))
            except (DamagedRecordError, InvalidRequestError):
                continue
            await self.reload(namespace)

    def note_damaged(self, namespace: str, records: Sequence[DamagedRecord] = (), *, fault: str = "") -> None:
        """Something of the namespace that was changed cannot be read: quarantine it, unless all is usable."""
        lost = [record for record in records if not record.usable]
        if lost or fault:
            self.quarantine.add(namespace, lost, fault=fault)
            self.on_changed(namespace)

    async def apply(
        self, namespace: str, changes: Sequence[StoredEdit], *, position: LogHead | None = None
    ) -> None:
        """Put committed versions in force; when it returns, every later search sees them.

        Versions older than one already seen are ignored, so replays and reordering do no harm. `position` is
        where the log ends of which all is applied with these.
        """
        held = self._namespaces.get(namespace)
        if held is None:
            held = self._namespaces.setdefault(namespace, self._new_namespace(empty_head(namespace)))
        for edits in (held, *(building for name, building in self._building if name == namespace)):
            await self._apply_to(edits, changes)
        self.on_changed(namespace)
        if position is not None:
            held.position = position

    def position(self, namespace: str) -> LogHead:
        """Where the log ends of which all is applied here; more than that may be."""
        held = self._namespaces.get(namespace)
        return empty_head(namespace) if held is None else held.position

    def positions(self) -> dict[str, LogHead]:
        """`position` of every namespace."""
        return {namespace: held.position for namespace, held in self._namespaces.items()}

    def has_seen(self, namespace: str, edit_id: str, version: int) -> bool:
        """Whether that version, or a newer one, is applied here."""
        held = self._namespaces.get(namespace)
        return held is not None and version <= held.newest_version.get(edit_id, 0)

    def candidates(
        self,
        namespace: str,
        queries_BD: Vectors,
        k: int,
        *,
        floor: float = -1.0,
        labels: Labels | None = NO_LABELS,
        wanted: Callable[[Edit], bool] | None = None,
    ) -> list[list[Candidate]]:
        """For each query the `k` nearest edits in force now for requests with `labels`, best first.

        `labels` None: for whatever audience. An unknown namespace has none.

        It is `k` of each state: edits on trial take no live edit's place, nor do those that have expired.
        Below the similarity `floor` the list may end early. With `wanted`, the edits for which it is true,
        in force or not, for whatever audience.
        """
        held = self._namespaces.get(namespace)
        if held is None:
            return [[] for _ in queries_BD]
        return self._nearest(held, held.index, queries_BD, k, floor, labels, wanted)

    def suppressions(self, namespace: str) -> tuple[Edit, ...]:
        """The suppressions that are applied, live or canary, in whatever window, for whatever audience.

        For any thread.

        The same tuple is returned until one of them changes.
        """
        held = self._namespaces.get(namespace)
        return () if held is None else held.suppressions

    def suppression_candidates(
        self,
        namespace: str,
        queries_BD: Vectors,
        k: int,
        *,
        floor: float = -1.0,
        labels: Labels | None = NO_LABELS,
    ) -> list[list[Candidate]]:
        """As `candidates`, of the namespace's `suppressions` only."""
        held = self._namespaces.get(namespace)
        if held is None:
            return [[] for _ in queries_BD]
        return self._nearest(held, held.suppression_index, queries_BD, k, floor, labels, None)

    def _nearest(
        self,
        held: IndexedNamespace,
        index: EditIndex,
        queries_BD: Vectors,
        k: int,
        floor: float,
        labels: Labels | None,
        wanted: Callable[[Edit], bool] | None,
    ) -> list[list[Candidate]]:
        now = self._clock()

        def taken(edit: Edit) -> bool:
            return edit.is_in_force(now) and (labels is None or edit.is_for(labels))

        return held.nearest(index, queries_BD, k, floor, wanted or taken)

    def current(self, namespace: str, edit_id: str) -> Edit | None:
        """The version in force in this process, None if the edit is unknown or retired. For any thread."""
        held = self._namespaces.get(namespace)
        return None if held is None else held.edits.get(edit_id)

    def log_order(self, namespace: str, edit_id: str) -> LogOrder:
        """Where the log made the edit's version that is in force; (0, 0) if none is. For any thread."""
        held = self._namespaces.get(namespace)
        return (0, 0) if held is None else held.log_orders.get(edit_id, (0, 0))

    def all(self, namespace: str) -> list[Edit]:
        """The edits in force in this process, in no order. For the event loop."""
        held = self._namespaces.get(namespace)
        return [] if held is None else list(held.edits.values())

    def has_audiences(self, namespace: str) -> bool:
        """Whether an edit of the namespace is for an audience. For any thread."""
        held = self._namespaces.get(namespace)
        return held is not None and bool(held.with_audience)

    def with_audience(self, namespace: str) -> list[Edit]:
        """The edits of the namespace that are for an audience, in no order. For any thread."""
        held = self._namespaces.get(namespace)
        ids = () if held is None else list(held.with_audience)
        return [] if held is None else [edit for name in ids if (edit := held.edits.get(name)) is not None]

    def count(self, namespace: str) -> int:
        """How many edits of the namespace are indexed."""
        held = self._namespaces.get(namespace)
        return 0 if held is None else len(held.edits)

    def states(self) -> dict[str, dict[EditState, int]]:
        """How many edits of each namespace are in each state. For any thread."""
        return {namespace: dict(held.states) for namespace, held in list(self._namespaces.items())}

    def due(self, namespace: str, day: date) -> list[Edit]:
        """The edits whose review is due by `day`, the longest due first, those of one day by id."""
        held = self._namespaces.get(namespace)
        if held is None:
            return []
        places = sorted((due, edit_id) for edit_id, due in list(held.review_by.items()) if due <= day)
        edits = (held.edits.get(edit_id) for _, edit_id in places)
        return [edit for edit in edits if edit is not None and edit.review_by is not None]

    def overdue(self) -> dict[str, int]:
        """How many edits of each namespace should have been reviewed before today (UTC). For any thread."""
        today = self._clock().astimezone(UTC).date()
        return {
            namespace: sum(due < today for due in list(held.review_by.values()))
            for namespace, held in list(self._namespaces.items())
        }

    async def _build(
        self,
        namespace: str,
        building: IndexedNamespace,
        on_progress: Callable[[int], None],
        damaged: list[DamagedRecord],
        made_by: Mapping[str, Committed],
    ) -> int:
        total = reencoded = 0
        batch: list[StoredEdit] = []
        async for stored in self._store.snapshot(namespace, on_damaged=damaged.append):
            batch.append(_with_log_id(stored, made_by.get(stored.edit.id)))
            reencoded += not self._fits(stored.edit, stored.vectors)
            if len(batch) == _LOAD_BATCH:
                await self._apply_to(building, batch)
                await asyncio.to_thread(building.index.make_room)
                total += len(batch)
                batch = []
                on_progress(total)
        await self._apply_to(building, batch)
        total += len(batch)
        on_progress(total)
        if reencoded:
            log.warning(
                "namespace %s: %d edits had damaged vectors or those of another encoder and were encoded anew"
                " with %s",
                namespace, reencoded, self._encoder.fingerprint,
            )  # fmt: skip
        return total

    async def _apply_to(self, held: IndexedNamespace, changes: Sequence[StoredEdit]) -> None:
        async with held.lock:
            await asyncio.to_thread(self._apply_locked, held, changes)

    def _apply_locked(self, held: IndexedNamespace, changes: Sequence[StoredEdit]) -> None:
        live: dict[str, tuple[Edit, FormVectors]] = {}
        gone: set[str] = set()
        for stored in changes:
            edit = stored.edit
            if edit.version <= held.newest_version.get(edit.id, 0):
                continue
            held.newest_version[edit.id] = edit.version
            # A version without a log id was committed after all that was read of the log.
            latest = max(held.latest, log_id_order(held.position.log_id))
            held.log_orders[edit.id] = latest if stored.log_id is None else log_id_order(stored.log_id)
            held.latest = max(latest, held.log_orders[edit.id])
            if edit.state not in ACTIVE_STATES:
                live.pop(edit.id, None)
                gone.add(edit.id)
            else:
                gone.discard(edit.id)
                live[edit.id] = (edit, stored.vectors)
        for edit_id in (*live, *gone):
            if (before := held.edits.get(edit_id)) is not None:
                held.states[before.state] -= 1
        held.states.update(edit.state for edit, _ in live.values())
        held.with_audience.difference_update(live, gone)
        held.with_audience.update(edit_id for edit_id, (edit, _) in live.items() if edit.audience)
        held.edits.update({edit_id: edit for edit_id, (edit, _) in live.items()})
        vectors_by_id = {edit_id: self._vectors(edit, vectors) for edit_id, (edit, vectors) in live.items()}
        held.index.put(vectors_by_id.items())
        held.index.remove(gone)
        for edit_id in gone:
            held.edits.pop(edit_id, None)
        for edit_id in (*live, *gone):
            held.review_by.pop(edit_id, None)
        held.review_by.update(
            {edit_id: edit.review_by for edit_id, (edit, _) in live.items() if edit.review_by is not None}
        )
        applied = {edit_id for edit_id, (edit, _) in live.items() if _is_applied_suppression(edit)}
        changed = {edit.id for edit in held.suppressions}.intersection((*live, *gone))
        if applied or changed:
            held.suppression_index.put((edit_id, vectors_by_id[edit_id]) for edit_id in applied)
            held.suppression_index.remove(changed - applied)
            held.suppressions = tuple(edit for edit in held.edits.values() if _is_applied_suppression(edit))

    def _new_namespace(self, position: LogHead) -> IndexedNamespace:
        # Suppressions always exactly: one that is not found is a leak.
        return IndexedNamespace(self._make_index(), FaissFlatIndex(self._encoder.width), position)

    def _vectors(self, edit: Edit, vectors: FormVectors) -> Vectors:
        return vectors.vectors_FD if self._fits(edit, vectors) else self._encoder.encode(forms(edit))

    def _fits(self, edit: Edit, vectors: FormVectors) -> bool:
        """Whether the vectors are this encoder's, of every form, and sound."""
        return (
            vectors.fingerprint == self._encoder.fingerprint
            and vectors_fault(vectors, edit) is None
            and vectors.vectors_FD.shape[1] == self._encoder.width
        )


def _is_applied_suppression(edit: Edit) -> bool:
    return edit.kind is EditKind.SUPPRESSION and edit.state in (EditState.LIVE, EditState.CANARY)


def _with_log_id(stored: StoredEdit, committed: Committed | None) -> StoredEdit:
    """`stored`, with the log id if it is that version which was committed then."""
    if committed is None or committed.version != stored.edit.version:
        return stored
    return msgspec.structs.replace(stored, log_id=committed.log_id)


def _counting_on(before: int, on_progress: Callable[[int], None]) -> Callable[[int], None]:
    return lambda count: on_progress(before + count)
