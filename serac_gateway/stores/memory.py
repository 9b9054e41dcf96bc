"""The edit store as a dictionary: what a store means, without a server. For tests; nothing is durable."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec
from typing_extensions import override

from serac_gateway.edits import Edit, EditState, check_edit_id, check_namespace
from serac_gateway.stores.api_keys import ApiKeyStore, InMemoryApiKeyStore
from serac_gateway.stores.base import (
    IDEMPOTENCY_TTL_S,
    LOG_START,
    Action,
    Commit,
    EditStore,
    LogEntry,
    Page,
    Receipt,
    StoredEdit,
    log_id_order,
)
from serac_gateway.stores.refusals import (
    check_commit,
    id_taken,
    key_reused,
    no_such_edit,
    no_such_version,
    stale_version,
)


@dataclass(kw_only=True)
class _Remembered:
    fingerprint: str
    receipt: Receipt
    until: float
    """On the monotonic clock."""


@dataclass
class _Namespace:
    current: dict[str, StoredEdit] = field(default_factory=dict)
    versions: dict[str, list[Edit]] = field(default_factory=dict)
    log: list[LogEntry] = field(default_factory=list)
    remembered: dict[str, _Remembered] = field(default_factory=dict)


class InMemoryEditStore(EditStore):
    """Keeps edits until it is garbage collected. No method suspends, so every commit is atomic."""

    def __init__(self, *, idempotency_ttl_s: float = IDEMPOTENCY_TTL_S) -> None:
        self._idempotency_ttl_s = idempotency_ttl_s
        self._namespaces: dict[str, _Namespace] = {}
        self._api_keys = InMemoryApiKeyStore()

    @override
    async def commit(self, namespace: str, commit: Commit) -> Receipt:
        check_commit(namespace, commit)
        edit = commit.stored.edit
        held = self._namespaces.get(namespace, _Namespace())
        key = commit.idempotency_key
        if key is not None:
            remembered = held.remembered.get(key)
            if remembered is not None and time.monotonic() < remembered.until:
                if remembered.fingerprint != commit.request_fingerprint:
                    raise key_reused(key)
                return msgspec.structs.replace(remembered.receipt, replayed=True)
        current_version = len(held.versions.get(edit.id, ()))
        if commit.action is Action.ADD:
            if current_version:
                raise id_taken(edit.id)
        elif not current_version:
            raise no_such_edit(namespace, edit.id)
        elif current_version != edit.version - 1:
            raise stale_version(edit.id, expected=edit.version - 1, current=current_version)

        self._namespaces[namespace] = held
        held.versions.setdefault(edit.id, []).append(edit)
        held.current[edit.id] = commit.stored
        entry = LogEntry(
            log_id=f"{len(held.log) + 1}-0",
            action=commit.action,
            edit_id=edit.id,
            version=edit.version,
            at=edit.created_at,
            author=edit.author,
            reason=edit.reason,
        )
        held.log.append(entry)
        receipt = Receipt(edit_id=edit.id, version=edit.version, log_id=entry.log_id)
        if key is not None:
            held.remembered[key] = _Remembered(
                fingerprint=commit.request_fingerprint,
                receipt=receipt,
                until=time.monotonic() + self._idempotency_ttl_s,
            )
        return receipt

    @override
    async def get(self, namespace: str, edit_id: str, *, version: int | None = None) -> Edit:
        if version is None:
            return (await self.stored(namespace, edit_id)).edit
        versions = self._held(namespace).versions.get(check_edit_id(edit_id), [])
        if not 1 <= version <= len(versions):
            raise no_such_version(edit_id, version)
        return versions[version - 1]

    @override
    async def versions(self, namespace: str, edit_id: str) -> list[Edit]:
        await self.stored(namespace, edit_id)
        return list(self._held(namespace).versions[edit_id])

    @override
    async def page(
        self, namespace: str, *, cursor: str | None = None, limit: int = 100, state: EditState | None = None
    ) -> Page:
        after = "" if cursor is None else check_edit_id(cursor)
        found = [
            stored.edit
            for edit_id, stored in sorted(self._held(namespace).current.items())
            if edit_id > after and state in (None, stored.edit.state)
        ]
        return Page(edits=found[:limit], next_cursor=found[limit - 1].id if len(found) > limit else None)

    @override
    async def snapshot(self, namespace: str) -> AsyncIterator[StoredEdit]:
        for stored in list(self._held(namespace).current.values()):
            if stored.edit.state is EditState.LIVE:
                yield stored

    @override
    async def stored(self, namespace: str, edit_id: str) -> StoredEdit:
        stored = self._held(namespace).current.get(check_edit_id(edit_id))
        if stored is None:
            raise no_such_edit(namespace, edit_id)
        return stored

    @override
    async def log_end(self, namespace: str) -> str:
        log = self._held(namespace).log
        return log[-1].log_id if log else LOG_START

    @override
    async def log(self, namespace: str, *, after: str = LOG_START, limit: int = 100) -> list[LogEntry]:
        start = log_id_order(after)
        return [entry for entry in self._held(namespace).log if log_id_order(entry.log_id) > start][:limit]

    @override
    async def namespaces(self) -> list[str]:
        return sorted(self._namespaces)

    @override
    def api_keys(self) -> ApiKeyStore:
        return self._api_keys

    @override
    async def ping(self) -> None:
        return

    @override
    async def close(self) -> None:
        return

    def _held(self, namespace: str) -> _Namespace:
        return self._namespaces.get(check_namespace(namespace), _Namespace())
