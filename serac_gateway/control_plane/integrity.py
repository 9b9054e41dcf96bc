"""Checks a namespace: its log, records and vectors, and whether the edits in force agree with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from serac_gateway.domain.edits import ACTIVE_STATES, Edit, EditState
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.errors import DamagedRecordError, GatewayError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.checked_records import DamagedRecord, vectors_fault
from serac_gateway.stores.log_chain import LogHead, empty_head
from serac_gateway.stores.log_verification import BrokenLogError, verify_log
from serac_gateway.stores.records import StoredEdit

_PAGE = 200
_MOST_PROBLEMS = 100


class StoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a check of one namespace."""

    sound: bool
    """There are no problems."""
    problems: tuple[str, ...]
    """One sentence each, the first 100."""
    log_entries: int
    log_digest: str
    """The digest that the log ends with."""
    edits: dict[EditState, int]
    """How many there are in each state."""
    encoders: dict[str, int]
    """How many edits have vectors of which encoder, by fingerprint."""


class StoreCheck:
    """Checks one namespace after the other against itself and against the edits in force in this process."""

    def __init__(self, *, store: EditStore, active_edits: ActiveEdits) -> None:
        self._store = store
        self._active_edits = active_edits

    async def run(self, namespace: str) -> StoreReport:
        """Check everything of a namespace; others may write meanwhile.

        Raises:
            StoreUnavailableError: The store failed.
        """
        report = await self._once(namespace)
        if report.sound:
            return report
        # A commit during the check can look like a problem, but not like the same one in two checks.
        again = await self._once(namespace)
        both = tuple(problem for problem in again.problems if problem in report.problems)
        return msgspec.structs.replace(again, sound=not both, problems=both)

    async def _once(self, namespace: str) -> StoreReport:
        problems: list[str] = []
        head = await self._check_log(namespace, problems)
        states = dict.fromkeys(EditState, 0)
        encoders: dict[str, int] = {}
        decided: dict[str, int] = {}
        damaged: dict[str, DamagedRecord] = {}
        async for page in self._pages(namespace, state=None, damaged=damaged):
            checked = await asyncio.gather(*(self._check_edit(namespace, edit, problems) for edit in page))
            for edit, stored in zip(page, checked, strict=True):
                states[edit.state] += 1
                if stored is not None and edit.state is not EditState.PURGED:
                    fingerprint = stored.vectors.fingerprint
                    encoders[fingerprint] = encoders.get(fingerprint, 0) + 1
                if edit.state in ACTIVE_STATES:
                    decided[edit.id] = edit.version
        problems += [f"edit {edit_id!r}: cannot be read: {damaged[edit_id].fault}" for edit_id in damaged]
        await self._check_states(namespace, states, problems)
        self._check_active_edits(namespace, decided, problems)
        return StoreReport(
            sound=not problems,
            problems=tuple(dict.fromkeys(problems))[:_MOST_PROBLEMS],
            log_entries=head.length,
            log_digest=head.digest,
            edits=states,
            encoders=encoders,
        )

    async def _check_log(self, namespace: str, problems: list[str]) -> LogHead:
        try:
            return await verify_log(self._store, namespace)
        except BrokenLogError as error:
            problems.append(f"log: {error}")
        except DamagedRecordError as error:
            problems.append(f"log: {error.message}")
            return empty_head(namespace)
        try:
            return await self._store.log_head(namespace)
        except DamagedRecordError:
            return empty_head(namespace)

    async def _check_edit(self, namespace: str, edit: Edit, problems: list[str]) -> StoredEdit | None:
        faults: list[DamagedRecord] = []
        try:
            if await self._store.get(namespace, edit.id, version=edit.version) != edit:
                problems.append(f"edit {edit.id!r}: its current record is not that of version {edit.version}")
            stored = await self._store.stored_many(namespace, [edit.id], on_damaged=faults.append)
        except GatewayError as error:
            problems.append(f"edit {edit.id!r}: cannot be read: {error}")
            return None
        problems += [f"edit {edit.id!r}: cannot be read: {record.fault}" for record in faults]
        if not stored:
            return None
        if not faults and (fault := vectors_fault(stored[0].vectors, stored[0].edit)):
            problems.append(f"edit {edit.id!r}: {fault}")
        return stored[0]

    async def _check_states(self, namespace: str, states: dict[EditState, int], problems: list[str]) -> None:
        for state, expected in states.items():
            listed = 0
            async for page in self._pages(namespace, state=state, damaged={}):
                listed += len(page)
            if listed != expected:
                problems.append(f"{expected:,} edits are {state.value}, and {listed:,} are listed as such")

    def _check_active_edits(self, namespace: str, decided: dict[str, int], problems: list[str]) -> None:
        here = {edit.id: edit.version for edit in self._active_edits.all(namespace)}
        for edit_id in sorted(decided.keys() | here.keys()):
            if decided.get(edit_id) != here.get(edit_id):
                problems.append(
                    f"edit {edit_id!r}: version {decided.get(edit_id)} is stored as in force, and version"
                    f" {here.get(edit_id)} is in force in this process"
                )

    async def _pages(
        self, namespace: str, state: EditState | None, damaged: dict[str, DamagedRecord]
    ) -> AsyncIterator[list[Edit]]:
        """All edits that can be read, a page at a time; adds to `damaged` what is damaged, by id."""

        def note(record: DamagedRecord) -> None:
            damaged[record.edit_id] = record

        cursor = None
        while True:
            page = await self._store.page(namespace, cursor=cursor, limit=_PAGE, state=state, on_damaged=note)
            yield list(page.edits)
            cursor = page.next_cursor
            if cursor is None:
                return
