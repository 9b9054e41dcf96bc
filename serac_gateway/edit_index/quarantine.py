"""Namespaces of which something stored cannot be read, so that nobody knows what is suppressed there.

A record that is read from a second place, or vectors that are made anew, quarantine nothing: the edits in
force are then those that were committed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping

import msgspec

from serac_gateway.domain.edits import is_edit_id
from serac_gateway.stores.checked_records import DamagedRecord

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_IDS_KEPT = 100


class Quarantine(msgspec.Struct, frozen=True, kw_only=True):
    """Why a namespace is in quarantine."""

    fault: str
    """The first fault, in a few words without content."""
    edit_ids: tuple[str, ...] = ()
    """Damaged edits, at most 100; none: it is the namespace's log, or a whole key, that is damaged."""


class QuarantineList:
    """The quarantined namespaces, and how many damaged records were read from elsewhere. For any thread."""

    def __init__(self) -> None:
        self._held: dict[str, Quarantine] = {}
        self._mended: dict[str, int] = {}
        self._due_s: dict[str, tuple[float, float]] = {}
        """When a namespace is to be tried again, and the pause before."""

    def __contains__(self, namespace: str) -> bool:
        """Whether the namespace is in quarantine."""
        return namespace in self._held

    def all(self) -> Mapping[str, Quarantine]:
        """The quarantined namespaces."""
        return dict(self._held)

    @property
    def damaged_records(self) -> int:
        """How many damaged records are read from another place where they are stored, or made anew."""
        return sum(self._mended.copy().values())

    def note(self, namespace: str, records: Iterable[DamagedRecord]) -> None:
        """The whole namespace was read, with these damaged records: it enters quarantine or leaves it."""
        records = list(records)
        usable = {record.edit_id for record in records if record.usable}
        lost = [record for record in records if not record.usable]
        if usable and len(usable) != self._mended.get(namespace):
            log.warning(
                "namespace %s: stored records of %d edits are damaged and were read from elsewhere (%s);"
                " `serac store repair` mends them",
                namespace, len(usable), ", ".join(sorted(usable)[:5]),
            )  # fmt: skip
        self._mended[namespace] = len(usable)
        if lost:
            self.add(namespace, lost)
        elif self._held.pop(namespace, None) is not None:
            self._due_s.pop(namespace, None)
            log.warning("namespace %s leaves quarantine: all its edits can be read again", namespace)

    def add(self, namespace: str, lost: Iterable[DamagedRecord] = (), *, fault: str = "") -> None:
        """Put the namespace into quarantine because of edits that cannot be read, or for another `fault`."""
        lost = list(lost)
        before = self._held.get(namespace)
        ids = dict.fromkeys([*(before.edit_ids if before else ()), *(record.edit_id for record in lost)])
        if lost:
            fault = f"edit {lost[0].edit_id!r}: {lost[0].fault}"
        self._held[namespace] = Quarantine(
            fault=before.fault if before else fault, edit_ids=tuple(ids)[:_IDS_KEPT]
        )
        if before is None:
            self._due_s[namespace] = (time.monotonic() + _FIRST_PAUSE_S, _FIRST_PAUSE_S)
            log.error(
                "namespace %s is quarantined, requests to it are not decided: %s; see `serac store repair"
                " --namespace %s`",
                namespace, fault, namespace,
            )  # fmt: skip

    def ids_to_try(self, namespace: str) -> list[str]:
        """The damaged edits that must be readable before the namespace is worth reading anew."""
        held = self._held.get(namespace)
        return [] if held is None else [edit_id for edit_id in held.edit_ids if is_edit_id(edit_id)]

    def due(self) -> list[str]:
        """The quarantined namespaces that it is time to try again: after a second, two, up to a minute."""
        now = time.monotonic()
        due = []
        for namespace in self._held:
            due_s, pause_s = self._due_s[namespace]
            if now >= due_s:
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                self._due_s[namespace] = (now + pause_s, pause_s)
                due.append(namespace)
        return due
