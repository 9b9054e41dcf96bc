"""The edit store in Redis or Valkey. redis_keys.py tells what lies where, commit.lua how it changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Self

import msgspec
from typing_extensions import override

from serac_gateway.edits import Edit, EditState, check_edit_id
from serac_gateway.stores import redis_keys
from serac_gateway.stores.api_keys import ApiKeyStore, RedisApiKeyStore
from serac_gateway.stores.base import (
    IDEMPOTENCY_TTL_S,
    LOG_START,
    Action,
    Commit,
    EditStore,
    FormVectors,
    LogEntry,
    Page,
    Receipt,
    StoredEdit,
    log_id_order,
)
from serac_gateway.stores.embedded_valkey import EmbeddedValkey
from serac_gateway.stores.redis_connection import RedisConnection, Word
from serac_gateway.stores.redis_keys import NamespaceKeys
from serac_gateway.stores.refusals import (
    check_commit,
    id_taken,
    key_reused,
    no_such_edit,
    no_such_version,
    stale_version,
)
from serac_gateway.vectors import vectors_from_bytes, vectors_to_bytes

_SNAPSHOT_BATCH = 256
"""About 1 MB with three forms of 384 dimensions an edit: a millisecond of the server's time."""
_MAX_VERSION = 2**31
_STATES = tuple(EditState)


class _StoredVectors(msgspec.Struct, frozen=True, kw_only=True):
    fingerprint: str
    width: int
    data: bytes


class RedisStore(EditStore):
    """Edits in one Redis >= 7 or Valkey >= 7.2.

    A commit is never sent twice: its reply may be lost after it was made, and only the caller knows its
    idempotency key.
    """

    def __init__(
        self,
        connection: RedisConnection,
        *,
        server: EmbeddedValkey | None = None,
        idempotency_ttl_s: int = IDEMPOTENCY_TTL_S,
    ) -> None:
        """Take over the connection, and the server behind it if it is ours: both end with the store."""
        self._connection = connection
        self._server = server
        self._idempotency_ttl_s = idempotency_ttl_s
        self._script = connection.script(
            resources.files(__package__).joinpath("commit.lua").read_text("utf-8")
        )

    @classmethod
    async def open(cls, url: str, *, idempotency_ttl_s: int = IDEMPOTENCY_TTL_S) -> Self:
        """A store at redis://, rediss:// or unix://.

        Raises:
            ConfigError: It cannot be reached or used; the message has the remedy, and no password.
        """
        return cls(await RedisConnection.open(url), idempotency_ttl_s=idempotency_ttl_s)

    @classmethod
    async def open_embedded(cls, folder: Path, *, idempotency_ttl_s: int = IDEMPOTENCY_TTL_S) -> Self:
        """A store in a Valkey of its own, which lives in `folder` and ends with the store.

        Raises:
            ConfigError: The server cannot be started there; the message has the remedy.
        """
        server = await EmbeddedValkey.start(folder)
        try:
            connection = await RedisConnection.open(server.url, name=server.name)
        except BaseException:
            await server.stop()
            raise
        return cls(connection, server=server, idempotency_ttl_s=idempotency_ttl_s)

    @override
    async def commit(self, namespace: str, commit: Commit) -> Receipt:
        check_commit(namespace, commit)
        edit, vectors = commit.stored.edit, commit.stored.vectors
        keys = NamespaceKeys(namespace)
        script_keys = [
            keys.current,
            keys.versions(edit.id),
            keys.vectors,
            keys.log,
            keys.result(commit.idempotency_key),
            keys.ids,
            *(keys.ids_in(state) for state in _STATES),
        ]
        script_args: list[Word] = [
            commit.action.value,
            edit.id,
            edit.version,
            msgspec.json.encode(edit),
            msgspec.msgpack.encode(
                _StoredVectors(
                    fingerprint=vectors.fingerprint,
                    width=vectors.vectors_FD.shape[1],
                    data=vectors_to_bytes(vectors.vectors_FD),
                )
            ),
            _STATES.index(edit.state) + 1,
            0 if commit.idempotency_key is None else self._idempotency_ttl_s,
            commit.request_fingerprint,
        ]
        reply = await self._connection.run(self._run_commit(namespace, script_keys, script_args))
        match reply:
            case [b"committed" | b"replayed" as outcome, version, log_id, edit_id]:
                return Receipt(
                    edit_id=edit_id.decode(),
                    version=int(version),
                    log_id=log_id.decode(),
                    replayed=outcome == b"replayed",
                )
            case [b"key_reused"]:
                raise key_reused(commit.idempotency_key or "")
            case [b"id_taken"]:
                raise id_taken(edit.id)
            case [b"no_such_edit"]:
                raise no_such_edit(namespace, edit.id)
            case [b"stale_version", current]:
                raise stale_version(edit.id, expected=edit.version - 1, current=int(current))
        raise AssertionError(f"commit.lua replied {reply!r}")

    @override
    async def get(self, namespace: str, edit_id: str, *, version: int | None = None) -> Edit:
        keys = NamespaceKeys(namespace)
        check_edit_id(edit_id)
        if version is None:
            record = await self._connection.read("HGET", keys.current, edit_id)
            if record is None:
                raise no_such_edit(namespace, edit_id)
        else:
            # LINDEX counts negative positions from the end.
            known = 1 <= version <= _MAX_VERSION
            record = (
                await self._connection.read("LINDEX", keys.versions(edit_id), version - 1) if known else None
            )
            if record is None:
                raise no_such_version(edit_id, version)
        return _edit(record)

    @override
    async def versions(self, namespace: str, edit_id: str) -> list[Edit]:
        records = await self._connection.read("LRANGE", NamespaceKeys(namespace).versions(edit_id), 0, -1)
        if not records:
            raise no_such_edit(namespace, edit_id)
        return [_edit(record) for record in records]

    @override
    async def page(
        self, namespace: str, *, cursor: str | None = None, limit: int = 100, state: EditState | None = None
    ) -> Page:
        keys = NamespaceKeys(namespace)
        found = await self._ids(
            keys.ids if state is None else keys.ids_in(state),
            after=None if cursor is None else check_edit_id(cursor),
            limit=limit + 1,
        )
        ids = found[:limit]
        records = await self._connection.read("HMGET", keys.current, *ids) if ids else []
        edits = [_edit(record) for record in records]
        return Page(
            # Again by state: it may have changed since the ids were read.
            edits=[edit for edit in edits if state in (None, edit.state)],
            next_cursor=ids[-1].decode() if len(found) > limit else None,
        )

    @override
    async def snapshot(self, namespace: str) -> AsyncIterator[StoredEdit]:
        keys = NamespaceKeys(namespace)
        after: str | None = None
        while ids := await self._ids(keys.ids_in(EditState.LIVE), after=after, limit=_SNAPSHOT_BATCH):
            for stored in await self._stored(keys, ids):
                if stored is not None and stored.edit.state is EditState.LIVE:
                    yield stored
            after = ids[-1].decode()

    @override
    async def stored(self, namespace: str, edit_id: str) -> StoredEdit:
        [stored] = await self._stored(NamespaceKeys(namespace), [check_edit_id(edit_id).encode()])
        if stored is None:
            raise no_such_edit(namespace, edit_id)
        return stored

    @override
    async def log_end(self, namespace: str) -> str:
        entries = await self._connection.read("XREVRANGE", NamespaceKeys(namespace).log, "+", "-", "COUNT", 1)
        return entries[0][0].decode() if entries else LOG_START

    @override
    async def log(self, namespace: str, *, after: str = LOG_START, limit: int = 100) -> list[LogEntry]:
        log_id_order(after)
        keys = NamespaceKeys(namespace)
        entries = await self._connection.read("XRANGE", keys.log, f"({after}", "+", "COUNT", limit)
        records = await self._connection.read_all(
            ("LINDEX", keys.versions(fields[b"edit_id"].decode()), int(fields[b"version"]) - 1)
            for _, fields in entries
        )
        return [
            _log_entry(log_id, fields, _edit(record))
            for (log_id, fields), record in zip(entries, records, strict=True)
        ]

    @override
    async def namespaces(self) -> list[str]:
        # One whose first commit failed is in the set, but has no log.
        tried = sorted(
            name.decode() for name in await self._connection.read("SMEMBERS", redis_keys.NAMESPACES)
        )
        exist = await self._connection.read_all(("EXISTS", NamespaceKeys(name).log) for name in tried)
        return [name for name, exists in zip(tried, exist, strict=True) if exists]

    @override
    def api_keys(self) -> ApiKeyStore:
        return RedisApiKeyStore(self._connection)

    @override
    async def ping(self) -> None:
        await self._connection.read("PING")

    @override
    async def close(self) -> None:
        await self._connection.close()
        if self._server is not None:
            await self._server.stop()

    async def _run_commit(self, namespace: str, keys: list[str], args: list[Word]) -> list[bytes]:
        reply: list[bytes] = await self._script(keys=keys, args=[*args, ""])
        if reply == [b"unregistered"]:
            # Before the commit, never after: a crash between them must not hide the namespace. Not inside:
            # the set is on another cluster slot.
            await self._connection.send("SADD", redis_keys.NAMESPACES, namespace)
            reply = await self._script(keys=keys, args=[*args, "1"])
        return reply

    async def _ids(self, key: str, *, after: str | None, limit: int) -> list[bytes]:
        start = "-" if after is None else f"({after}"
        ids: list[bytes] = await self._connection.read("ZRANGE", key, start, "+", "BYLEX", "LIMIT", 0, limit)
        return ids

    async def _stored(self, keys: NamespaceKeys, ids: Sequence[bytes]) -> list[StoredEdit | None]:
        # A transaction, so that no record comes with another version's vectors.
        records, vectors = await self._connection.read_all(
            [("HMGET", keys.current, *ids), ("HMGET", keys.vectors, *ids)], transaction=True
        )
        return [
            None if record is None else StoredEdit(edit=_edit(record), vectors=_form_vectors(packed))
            for record, packed in zip(records, vectors, strict=True)
        ]


def _edit(record: bytes) -> Edit:
    return msgspec.json.decode(record, type=Edit)


def _form_vectors(packed: bytes) -> FormVectors:
    stored = msgspec.msgpack.decode(packed, type=_StoredVectors)
    return FormVectors(
        fingerprint=stored.fingerprint, vectors_FD=vectors_from_bytes(stored.data, stored.width)
    )


def _log_entry(log_id: bytes, fields: dict[bytes, bytes], edit: Edit) -> LogEntry:
    return LogEntry(
        log_id=log_id.decode(),
        action=Action(fields[b"action"].decode()),
        edit_id=edit.id,
        version=edit.version,
        at=edit.created_at,
        author=edit.author,
        reason=edit.reason,
    )
