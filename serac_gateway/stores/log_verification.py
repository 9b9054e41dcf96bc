"""Verifies that a log is as it was written: no entry changed, missing, reordered or inserted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from serac_gateway.domain.edits import Edit, EditState, tombstone
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.checked_records import checked_edit
from serac_gateway.stores.log_chain import (
    LogEvidence,
    LogHead,
    VersionCount,
    VersionRecord,
    chained,
    empty_head,
    fields_digest,
)
from serac_gateway.stores.records import LOG_START, Action, log_id_order

Evidence = LogEvidence | VersionCount | LogHead

_PAGE = 500


class BrokenLogError(Exception):
    """The log is not as it was written.

    Attributes:
        log_id: The first entry that is not as it should be, or the last good one if what follows it is gone.
    """

    def __init__(self, log_id: str, message: str) -> None:
        super().__init__(message)
        self.log_id = log_id


class LogVerifier:
    """Takes a namespace's evidence piece by piece, and raises at the first that is not as it should be.

    Pure: it trusts nothing but what it computes itself. Keeps a number for each edit, no content.
    """

    def __init__(self, namespace: str, *, expected: str | None = None) -> None:
        """`expected` is a digest from an earlier verification, which the log must still contain."""
        self.head = empty_head(namespace)
        """Where the log verified so far ends."""
        self._namespace = namespace
        self._expected = expected
        self._expected_seen = expected in (None, self.head.digest)
        self._versions: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._unsealed: dict[str, str] = {}
        """Edit id to the first entry whose record is a tombstone: a purge must follow."""

    def take(self, evidence: Evidence) -> None:
        """Take the next piece: entries in order; counts of versions anywhere; the head last.

        Raises:
            BrokenLogError: It is not as it should be.
        """
        match evidence:
            case LogEvidence():
                self._take_entry(evidence)
            case VersionCount():
                self._counts[evidence.edit_id] = evidence.versions
            case LogHead():
                self._end(evidence)

    def version_of(self, edit_id: str) -> int:
        """The edit's version by the entries taken so far; 0: none has named it."""
        return self._versions.get(edit_id, 0)

    def _take_entry(self, entry: LogEvidence) -> None:
        self._check_chain(entry)
        self._check_record(entry)
        self.head = LogHead(log_id=entry.log_id, digest=entry.digest, length=self.head.length + 1)
        self._versions[entry.edit_id] = entry.version
        self._expected_seen = self._expected_seen or entry.digest == self._expected
        if entry.action == Action.PURGE:
            self._unsealed.pop(entry.edit_id, None)

    def _check_chain(self, entry: LogEvidence) -> None:
        if log_id_order(entry.log_id) <= log_id_order(self.head.log_id):
            raise BrokenLogError(
                entry.log_id, f"entry {entry.log_id} stands after {self.head.log_id}: the log was reordered"
            )
        if entry.previous_digest != self.head.digest:
            raise BrokenLogError(
                entry.log_id,
                f"entry {entry.log_id} ({_describe(entry)}) does not follow on {self.head.log_id}: an entry"
                " before it is missing, was put in or was moved, or its digest was changed",
            )
        fields = fields_digest(
            action=entry.action,
            edit_id=entry.edit_id,
            version=entry.version,
            content_digest=entry.content_digest,
            author=entry.author,
            approval=entry.approval,
        )
        if chained(entry.previous_digest, fields, entry.log_id) != entry.digest:
            raise BrokenLogError(
                entry.log_id,
                f"entry {entry.log_id} ({_describe(entry)}) was changed: it does not give its digest",
            )

    def _check_record(self, entry: LogEvidence) -> None:
        if entry.version != self._versions.get(entry.edit_id, 0) + 1:
            raise BrokenLogError(
                entry.log_id,
                f"entry {entry.log_id} ({_describe(entry)}) comes after version"
                f" {self._versions.get(entry.edit_id, 0)} of that edit",
            )
        if entry.stored is None:
            raise BrokenLogError(
                entry.log_id, f"the record of {_describe(entry)}, logged by entry {entry.log_id}, is missing"
            )
        if entry.stored.salt is None and _is_tombstone(entry.stored, self._namespace, entry):
            self._unsealed.setdefault(entry.edit_id, entry.log_id)
        elif entry.stored.content_digest != entry.content_digest:
            raise BrokenLogError(
                entry.log_id,
                f"the record of {_describe(entry)} was changed: entry {entry.log_id} logged another one",
            )
        else:
            self._check_place(entry, entry.stored)

    def _check_place(self, entry: LogEvidence, stored: VersionRecord) -> None:
        """The digest shows only that the record is the logged one, not that it was ever a commit's."""
        try:
            edit = checked_edit(
                stored.record, namespace=self._namespace, edit_id=entry.edit_id, version=entry.version
            )
            if (Action(entry.action) is Action.PURGE) != (edit.state is EditState.PURGED):
                raise ValueError(f"it is in state {edit.state.value}")
        except ValueError as exc:
            raise BrokenLogError(
                entry.log_id, f"the record of {_describe(entry)} cannot be what was logged: {exc}"
            ) from exc

    def _end(self, head: LogHead) -> None:
        if head != self.head:
            raise BrokenLogError(
                self.head.log_id,
                f"the log ends with entry {self.head.log_id} as number {self.head.length:,}, and its head"
                f" says {head.log_id} as number {head.length:,}: entries at the end are missing, or the head"
                " was changed",
            )
        for edit_id, log_id in self._unsealed.items():
            raise BrokenLogError(
                log_id, f"the record that entry {log_id} logged of edit {edit_id!r} is gone without a purge"
            )
        for edit_id, count in self._counts.items():
            if count > self._versions.get(edit_id, 0):
                raise BrokenLogError(
                    self.head.log_id,
                    f"edit {edit_id!r} has {count} version records, and the log knows of"
                    f" {self._versions.get(edit_id, 0)}",
                )
        if not self._expected_seen:
            raise BrokenLogError(
                self.head.log_id,
                f"no entry has the expected digest {self._expected!r}: the log was cut or written anew since"
                " that digest was noted, or it is another namespace's",
            )


async def log_evidence(store: EditStore, namespace: str) -> AsyncIterator[Evidence]:
    """All there is to verify a namespace's log: its entries in order, counts of versions, its head.

    Right also while others write: what is committed meanwhile is in it or comes after its head.
    """
    after = LOG_START
    while page := await store.evidence(namespace, after=after, limit=_PAGE):
        for entry in page:
            yield entry
        after = page[-1].log_id
    async for count in store.version_counts(namespace):
        yield count
    while True:
        head = await store.log_head(namespace)
        page = await store.evidence(namespace, after=after, limit=_PAGE)
        for entry in page:
            yield entry
            after = entry.log_id
        if not page:
            yield head
            return


async def verify_log(store: EditStore, namespace: str, *, expected: str | None = None) -> LogHead:
    """The head of a log that is what was written.

    Raises:
        BrokenLogError: It is not; the message names the first entry that shows it.
        StoreUnavailableError: The store failed.
    """
    verifier = LogVerifier(namespace, expected=expected)
    async for piece in log_evidence(store, namespace):
        verifier.take(piece)
    return verifier.head


def _describe(entry: LogEvidence) -> str:
    return f"{entry.action} of edit {entry.edit_id!r} version {entry.version}"


def _is_tombstone(stored: VersionRecord, namespace: str, entry: LogEvidence) -> bool:
    """Whether it is what a purge leaves of that version, to the letter, in whatever release."""
    try:
        fields = msgspec.json.decode(stored.record, type=dict[str, object])
        edit = msgspec.json.decode(stored.record, type=Edit)
    except ValueError:
        return False
    return (
        msgspec.json.encode(fields).decode() == stored.record
        and edit == tombstone(edit)
        and (edit.namespace, edit.id, edit.version) == (namespace, entry.edit_id, entry.version)
    )
