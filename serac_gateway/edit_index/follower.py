"""Follows the logs of all namespaces, to which other gateways write too, and applies their entries.

An entry that does not continue the log as read before, or a log that ends before that, means that the store
has changed (restored, failed over, last writes lost): the namespace is then built anew. While the store
cannot be read, the edits in force stay as they are. Of a namespace with a damaged record, that namespace
alone is quarantined; it is read anew once the record is repaired.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

import msgspec

from serac_gateway.domain.edits import is_edit_id
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.errors import DamagedRecordError, InvalidRequestError, StoreUnavailableError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.checked_records import DamagedRecord
from serac_gateway.stores.log_chain import LogEvidence, LogHead
from serac_gateway.stores.records import log_id_order

log = logging.getLogger(__name__)

_PAGE = 500
"""Entries of a namespace that are applied at a time, with their vectors some 2 MB."""
_WAIT_S = 0.2
"""For new entries."""
_NAMESPACES_READ_EVERY_S = 0.2
_HEADS_CHECKED_EVERY_S = 1.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class LogFollower:
    """Applies commits of other gateways. Belongs to one event loop."""

    def __init__(
        self,
        *,
        store: EditStore,
        active_edits: ActiveEdits,
        max_staleness_s: float,
        on_applied: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_applied` is called after every change of `ActiveEdits.positions`."""
        self._store = store
        self._active_edits = active_edits
        self._max_staleness_s = max_staleness_s
        self._on_applied = on_applied
        self._reader = store.log_reader()
        self._namespaces: set[str] = set()
        self._read_after: dict[str, str] = {}
        """Of a namespace whose log goes on after its head, where that damage ends."""
        self._heads_ahead: dict[str, LogHead] = {}
        self._heads_due_at_s = 0.0
        self._namespaces_due_at_s = 0.0
        self._caught_up_at_s = time.monotonic()
        self._caught_up = asyncio.Event()
        self._failure: str | None = None
        self.failures = 0
        """How often the store could not be read."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow, from where `active_edits` was loaded at."""
        self._caught_up_at_s = time.monotonic()
        self._task = asyncio.create_task(self._follow(), name="log-follower")

    async def close(self) -> None:
        """Stop following. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._reader.close()

    async def caught_up(self) -> None:
        """Return when all that had been committed at the time of `start` is in force."""
        await self._caught_up.wait()

    @property
    def staleness_s(self) -> float:
        """How long ago all that was committed was in force here."""
        return time.monotonic() - self._caught_up_at_s

    @property
    def store_answers(self) -> bool:
        """Whether the store could be read when this process last tried, some tenths of a second ago."""
        return self._failure is None

    @property
    def problem(self) -> str | None:
        """Why this process should get no requests: its edits are older than allowed. None: they are not."""
        if self.staleness_s <= self._max_staleness_s:
            return None
        why = self._failure or "still reading what was committed meanwhile"
        return f"as of {self.staleness_s:.0f} s ago, {self._max_staleness_s:g} s are allowed: {why}"

    async def _follow(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._turn()
            except StoreUnavailableError as error:
                self._failed(error.message)
            except Exception as error:  # a follower that ended would let this process grow old unseen
                log.exception("following the log failed")
                self._failed(f"following the log failed: {error!r}")
            else:
                if self._failure is not None:
                    log.info("following the log again")
                self._failure, pause_s = None, _FIRST_PAUSE_S
                continue
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _failed(self, message: str) -> None:
        if self._failure is None:
            log.warning("edits of other gateways do not arrive: %s", message)
        self._failure = message
        self.failures += 1
        self._heads_ahead = {}
        self._heads_due_at_s = 0.0  # the store may have changed when it is back

    async def _turn(self) -> None:
        if time.monotonic() >= self._namespaces_due_at_s:
            self._namespaces.update(await self._reader.namespaces(), self._active_edits.positions())
            self._namespaces_due_at_s = time.monotonic() + _NAMESPACES_READ_EVERY_S
        if time.monotonic() >= self._heads_due_at_s:
            await self._check_heads()
            await self._active_edits.retry_quarantined()
            self._heads_due_at_s = time.monotonic() + _HEADS_CHECKED_EVERY_S
        read_at_s = time.monotonic()
        pages = await self._reader.after(
            {name: self._position(name) for name in self._namespaces},
            wait_s=_WAIT_S if self._caught_up.is_set() else 0.001,
            limit=_PAGE,
        )
        for namespace, entries in pages.items():
            try:
                await self._apply(namespace, entries)
            except (DamagedRecordError, InvalidRequestError) as error:
                self._active_edits.note_damaged(namespace, fault=error.message)
                self._read_after[namespace] = entries[-1].log_id
        if all(len(entries) < _PAGE for entries in pages.values()):
            self._caught_up_at_s = read_at_s
            self._caught_up.set()

    def _position(self, namespace: str) -> str:
        applied = self._active_edits.position(namespace).log_id
        return max(applied, self._read_after.get(namespace, applied), key=log_id_order)

    async def _check_heads(self) -> None:
        """Build namespaces anew whose position is not the head of their log."""
        heads = await self._reader.heads(self._namespaces)
        ahead = {}
        for namespace in self._namespaces - heads.keys():
            self._active_edits.note_damaged(namespace, fault="the head of its log, or its log, is damaged")
        for namespace, head in heads.items():
            position = self._active_edits.position(namespace)
            if head == position:
                continue
            if log_id_order(head.log_id) <= log_id_order(position.log_id):
                await self._reload(namespace, f"its log went to {position.log_id}, now to {head.log_id}")
            elif self._heads_ahead.get(namespace) == position:
                await self._reload(namespace, f"entries of its log up to {head.log_id} are missing")
            else:
                ahead[namespace] = position
        self._heads_ahead = ahead

    async def _apply(self, namespace: str, entries: Sequence[LogEvidence]) -> None:
        position, last = self._active_edits.position(namespace), entries[-1]
        digests = (position.digest, *(entry.digest for entry in entries))
        if any(entry.previous_digest != before for before, entry in zip(digests, entries, strict=False)):
            await self._reload(
                namespace, f"its log does not go on from {position.log_id}, as far as it was read"
            )
            if log_id_order(last.log_id) > log_id_order(self._active_edits.position(namespace).log_id):
                log.error("namespace %s: its log goes on after its head; see `serac log verify`", namespace)
                self._read_after[namespace] = last.log_id
            return
        newest = {entry.edit_id: entry.version for entry in entries if is_edit_id(entry.edit_id)}
        unseen = [
            edit_id
            for edit_id, version in newest.items()
            if not self._active_edits.has_seen(namespace, edit_id, version)
        ]
        log_ids = {(entry.edit_id, entry.version): entry.log_id for entry in entries}
        damaged: list[DamagedRecord] = []
        await self._active_edits.apply(
            namespace,
            [
                msgspec.structs.replace(stored, log_id=log_ids.get((stored.edit.id, stored.edit.version)))
                for stored in await self._store.stored_many(namespace, unseen, on_damaged=damaged.append)
            ],
            position=LogHead(
                log_id=last.log_id, digest=last.digest, length=position.length + len(entries)
            ),
        )  # fmt: skip
        self._active_edits.note_damaged(namespace, damaged)
        self._on_applied()

    async def _reload(self, namespace: str, why: str) -> None:
        log.warning("namespace %s is read anew: %s", namespace, why)
        count = await self._active_edits.reload(namespace)
        log.info("namespace %s was read anew: %d edits", namespace, count)
        self._on_applied()
