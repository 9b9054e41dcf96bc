"""Reads edits of one namespace, and checks each record before anybody sees it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from serac_gateway.domain.edits import Edit, EditState, is_edit_id, tombstone
from serac_gateway.errors import DamagedRecordError
from serac_gateway.stores.checked_records import DamagedRecord, OnDamaged, checked_edit, damaged
from serac_gateway.stores.errors import no_such_edit, no_such_version
from serac_gateway.stores.records import NO_VECTORS, FormVectors, StoredEdit
from serac_gateway.stores.redis.connection import RedisConnection
from serac_gateway.stores.redis.keys import NamespaceKeys
from serac_gateway.stores.redis.records import form_vectors, record_bytes

_MAX_VERSION = 2**31


class EditReader:
    """Reads what keys.py lists of one namespace. Borrows the connection.

    The current record of an edit is also that of its newest version: if the one is damaged, the other is
    read in its place.
    """

    def __init__(self, connection: RedisConnection, namespace: str) -> None:
        """Raises InvalidRequestError if the namespace breaks the rules."""
        self._connection = connection
        self._namespace = namespace
        self._keys = NamespaceKeys(namespace)

    async def current(self, edit_id: str) -> Edit:
        """The current version.

        Raises:
            EditNotFoundError: There is none.
            DamagedRecordError: It is damaged in both places.
        """
        record = await self._connection.read("HGET", self._keys.current, edit_id)
        try:
            if record is not None:
                return checked_edit(record, namespace=self._namespace, edit_id=edit_id)
            fault = "its current record is missing"
        except ValueError as exc:
            fault = str(exc)
        versions = await self._readable_versions(edit_id)
        if versions and versions[-1] is not None:
            return versions[-1]
        if record is None and not versions:
            raise no_such_edit(self._namespace, edit_id)
        raise damaged(self._namespace, edit_id, fault)

    async def version(self, edit_id: str, version: int) -> Edit:
        """That version.

        Raises:
            EditNotFoundError: There is none.
            DamagedRecordError: It is damaged.
        """
        # LINDEX counts negative positions from the end.
        known = 1 <= version <= _MAX_VERSION
        key = self._keys.versions(edit_id)
        element = await self._connection.read("LINDEX", key, version - 1) if known else None
        if element is None:
            raise no_such_version(edit_id, version)
        return self._version_in(element, edit_id, version)

    async def versions(self, edit_id: str) -> list[Edit]:
        """All versions, oldest first; none if there is no such edit. Raises DamagedRecordError."""
        elements = await self._connection.read("LRANGE", self._keys.versions(edit_id), 0, -1)
        return [self._version_in(element, edit_id, place) for place, element in enumerate(elements, 1)]

    async def tombstones(self, purged: Edit) -> list[Edit]:
        """What the purge with that tombstone leaves of each version; a damaged one gets the purge's time."""
        versions = await self._readable_versions(purged.id)
        return [
            tombstone(edit or msgspec.structs.replace(purged, version=version))
            for version, edit in enumerate(versions, 1)
        ]

    async def ids(self, key: str, *, after: str | None, limit: int) -> list[bytes]:
        """At most `limit` ids of the sorted set, in order."""
        start = "-" if after is None else f"({after}"
        ids: list[bytes] = await self._connection.read("ZRANGE", key, start, "+", "BYLEX", "LIMIT", 0, limit)
        return ids

    async def page(
        self, ids: Sequence[bytes], *, state: EditState | None, on_damaged: OnDamaged
    ) -> list[Edit]:
        """The current versions of those of `ids` that are in `state`, in order."""
        records = await self._connection.read("HMGET", self._keys.current, *ids) if ids else []
        edits: list[Edit] = []
        for edit_id, record in zip(ids, records, strict=True):
            edit = await self._checked(edit_id, record, on_damaged)
            # Again by state: it may have changed since the ids were read.
            if edit is not None and state in (None, edit.state):
                edits.append(edit)
        return edits

    async def stored(self, ids: Sequence[bytes], *, on_damaged: OnDamaged) -> list[StoredEdit | None]:
        """For each id the current version with its vectors; None: there is none, or it is damaged."""
        # A transaction, so that no record comes with another version's vectors.
        records, vectors = await self._connection.read_all(
            [("HMGET", self._keys.current, *ids), ("HMGET", self._keys.vectors, *ids)], transaction=True
        )
        stored: list[StoredEdit | None] = []
        for edit_id, record, packed in zip(ids, records, vectors, strict=True):
            edit = await self._checked(edit_id, record, on_damaged)
            if edit is None:
                stored.append(None)
                continue
            stored.append(StoredEdit(edit=edit, vectors=_vectors(edit, packed, on_damaged)))
        return stored

    async def _checked(self, raw_id: bytes, record: bytes | None, on_damaged: OnDamaged) -> Edit | None:
        edit_id = raw_id.decode("utf-8", "replace")
        if not is_edit_id(edit_id):
            on_damaged(DamagedRecord(edit_id=edit_id[:80], fault="that is no id of an edit"))
            return None
        fault = "its current record is missing"
        if record is not None:
            try:
                return checked_edit(record, namespace=self._namespace, edit_id=edit_id)
            except ValueError as exc:
                fault = str(exc)
        versions = await self._readable_versions(edit_id)
        if record is None and not versions:
            return None
        # A tombstone says nothing of the kind that its edit had.
        kinds = [edit.kind for edit in versions if edit is not None and edit.state is not EditState.PURGED]
        newest = versions[-1] if versions else None
        kind = kinds[-1] if kinds else None
        on_damaged(DamagedRecord(edit_id=edit_id, fault=fault, kind=kind, usable=newest is not None))
        return newest

    async def _readable_versions(self, edit_id: str) -> list[Edit | None]:
        """Each version, oldest first; None for one that is damaged."""
        elements = await self._connection.read("LRANGE", self._keys.versions(edit_id), 0, -1)
        versions: list[Edit | None] = []
        for place, element in enumerate(elements, 1):
            try:
                versions.append(self._version_in(element, edit_id, place))
            except DamagedRecordError:
                versions.append(None)
        return versions

    def _version_in(self, element: bytes, edit_id: str, version: int) -> Edit:
        try:
            return checked_edit(
                record_bytes(element), namespace=self._namespace, edit_id=edit_id, version=version
            )
        except ValueError as exc:
            raise damaged(self._namespace, edit_id, f"version {version}: {exc}") from exc


def _vectors(edit: Edit, packed: bytes | None, on_damaged: OnDamaged) -> FormVectors:
    """The stored vectors; `NO_VECTORS` where they are torn, so that the edit is encoded anew."""
    try:
        return form_vectors(packed)
    except ValueError as exc:
        fault = f"its vectors are torn: {exc}"
        on_damaged(DamagedRecord(edit_id=edit.id, fault=fault, kind=edit.kind, usable=True))
        return NO_VECTORS
