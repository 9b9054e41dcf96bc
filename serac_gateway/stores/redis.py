"""The edit store in Redis or Valkey. redis_keys.py tells what lies where, commit.lua how it changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from importlib import resources
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from typing_extensions import override

from serac_gateway.edits import Edit, EditState, check_edit_id
from serac_gateway.errors import ConfigError, StoreUnavailableError
from serac_gateway.stores import redis_keys
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
from serac_gateway.stores.redis_errors import FOREIGN_ERRORS, reason, unavailable
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

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_OLDEST_SERVER = 7
"""Redis 7.0 and Valkey 7.2: the first whose scripts refuse to start where they could not finish."""
_MAX_CONNECTIONS = 32
_TIMEOUT_S = 5.0
"""For a connection, for a free one, and for an answer."""
_SNAPSHOT_BATCH = 256
"""About 1 MB with three forms of 384 dimensions an edit: a millisecond of the server's time."""
_MAX_VERSION = 2**31
_STATES = tuple(EditState)
_SETTINGS_THAT_KEEP_EDITS = {
    b"appendonly": b"yes",
    b"appendfsync": b"always",
    b"maxmemory-policy": b"noeviction",
}


class _StoredVectors(msgspec.Struct, frozen=True, kw_only=True):
    fingerprint: str
    width: int
    data: bytes


class RedisStore(EditStore):
    """Edits in one Redis >= 7 or Valkey >= 7.2.

    Nothing is retried: the reply to a commit may be lost after it was made, and only the caller knows its
    idempotency key. Every exchange runs to its end in a task of its own, so a caller that is cancelled
    neither cuts a commit in half nor leaves a connection with half a reply to the next one.
    """

    def __init__(
        self,
        client: Redis,
        *,
        name: str,
        server: EmbeddedValkey | None = None,
        idempotency_ttl_s: int = IDEMPOTENCY_TTL_S,
    ) -> None:
        """Take over `client`, and `server` if it is ours: both are closed with the store.

        Args:
            client: Must not retry, and must not decode.
            name: How errors call the store; without secrets.
            server: The server behind `client`.
            idempotency_ttl_s: How long the receipt behind an idempotency key is kept.
        """
        self._client = client
        self._name = name
        self._server = server
        self._idempotency_ttl_s = idempotency_ttl_s
        script = resources.files(__package__).joinpath("commit.lua").read_text("utf-8")
        self._commit_script = client.register_script(script)
        self._in_flight: set[asyncio.Future[Any]] = set()

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        name: str | None = None,
        server: EmbeddedValkey | None = None,
        idempotency_ttl_s: int = IDEMPOTENCY_TTL_S,
    ) -> Self:
        """A store on a server that answers, is new enough, and holds no newer layout than ours.

        Raises:
            ConfigError: It is not so; the message has the remedy, and no password.
        """
        name = name or repr(without_password(url))
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_MAX_CONNECTIONS,
                timeout=_TIMEOUT_S,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                client_name="serac_gateway",
            )
            pool.make_connection()  # refuses what it does not know in the URL's query
        except (ValueError, TypeError) as exc:
            raise ConfigError(
                f"the edit store's URL {name} cannot be used: {exc}; write redis://host:port/0,"
                " rediss://user:password@host:port/0 or unix:///path/to/socket"
            ) from exc
        store = cls(Redis.from_pool(pool), name=name, server=server, idempotency_ttl_s=idempotency_ttl_s)
        try:
            await store._exchange(store._check_server())
        except BaseException as exc:
            await store._client.aclose()
            if isinstance(exc, StoreUnavailableError):
                words = reason(exc.__cause__ or exc)
                raise ConfigError(
                    f"cannot reach the edit store at {name}: {words}; start it or leave out --redis to use"
                    " the embedded one"
                ) from exc
            raise
        return store

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
        script_args: list[str | bytes | int] = [
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
        reply = await self._exchange(self._run_commit(namespace, script_keys, script_args))
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
            record = await self._command("HGET", keys.current, edit_id)
            if record is None:
                raise no_such_edit(namespace, edit_id)
        else:
            # LINDEX counts negative positions from the end.
            known = 1 <= version <= _MAX_VERSION
            record = await self._command("LINDEX", keys.versions(edit_id), version - 1) if known else None
            if record is None:
                raise no_such_version(edit_id, version)
        return _edit(record)

    @override
    async def versions(self, namespace: str, edit_id: str) -> list[Edit]:
        records = await self._command("LRANGE", NamespaceKeys(namespace).versions(edit_id), 0, -1)
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
        records = await self._command("HMGET", keys.current, *ids) if ids else []
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
        entries = await self._command("XREVRANGE", NamespaceKeys(namespace).log, "+", "-", "COUNT", 1)
        return entries[0][0].decode() if entries else LOG_START

    @override
    async def log(self, namespace: str, *, after: str = LOG_START, limit: int = 100) -> list[LogEntry]:
        log_id_order(after)
        keys = NamespaceKeys(namespace)
        entries = await self._command("XRANGE", keys.log, f"({after}", "+", "COUNT", limit)
        pipeline = self._client.pipeline(transaction=False)
        for _, fields in entries:
            pipeline.lindex(keys.versions(fields[b"edit_id"].decode()), int(fields[b"version"]) - 1)
        records = await self._exchange(pipeline.execute()) if entries else []
        return [
            _log_entry(log_id, fields, _edit(record))
            for (log_id, fields), record in zip(entries, records, strict=True)
        ]

    @override
    async def namespaces(self) -> list[str]:
        # One whose first commit failed is in the set, but has no log.
        tried = sorted(name.decode() for name in await self._command("SMEMBERS", redis_keys.NAMESPACES))
        pipeline = self._client.pipeline(transaction=False)
        for name in tried:
            pipeline.exists(NamespaceKeys(name).log)
        exist = await self._exchange(pipeline.execute()) if tried else []
        return [name for name, exists in zip(tried, exist, strict=True) if exists]

    @override
    async def ping(self) -> None:
        await self._command("PING")

    @override
    async def close(self) -> None:
        if self._in_flight:
            await asyncio.wait(self._in_flight)  # each ends within its timeouts
        await self._client.aclose()
        if self._server is not None:
            await self._server.stop()

    async def _exchange(self, operation: Awaitable[_T]) -> _T:
        """Run an exchange with the server to its end, whatever happens to the caller."""
        task = asyncio.ensure_future(operation)
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        try:
            return await asyncio.shield(task)
        except FOREIGN_ERRORS as exc:
            raise unavailable(self._name, exc) from exc

    async def _command(self, *command: str | bytes | int) -> Any:  # noqa: ANN401 - a reply's type is its command's
        return await self._exchange(self._client.execute_command(*command))

    async def _run_commit(
        self, namespace: str, keys: list[str], args: list[str | bytes | int]
    ) -> list[bytes]:
        # The script is sent by its digest, and by its text where the server does not have it (any more);
        # a server that says so has run nothing.
        reply: list[bytes] = await self._commit_script(keys=keys, args=[*args, ""])
        if reply == [b"unregistered"]:
            # Before the commit, never after: a crash between them must not hide the namespace. Not inside:
            # the set is on another cluster slot.
            await self._client.execute_command("SADD", redis_keys.NAMESPACES, namespace)
            reply = await self._commit_script(keys=keys, args=[*args, "1"])
        return reply

    async def _ids(self, key: str, *, after: str | None, limit: int) -> list[bytes]:
        start = "-" if after is None else f"({after}"
        ids: list[bytes] = await self._command("ZRANGE", key, start, "+", "BYLEX", "LIMIT", 0, limit)
        return ids

    async def _stored(self, keys: NamespaceKeys, ids: Sequence[bytes]) -> list[StoredEdit | None]:
        # A transaction, so that no record comes with another version's vectors.
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hmget(keys.current, ids)
        pipeline.hmget(keys.vectors, ids)
        records, vectors = await self._exchange(pipeline.execute())
        return [
            None if record is None else StoredEdit(edit=_edit(record), vectors=_form_vectors(packed))
            for record, packed in zip(records, vectors, strict=True)
        ]

    async def _check_server(self) -> None:
        hello = await self._client.execute_command("HELLO")
        facts = dict(zip(hello[::2], hello[1::2], strict=True))
        version = facts[b"version"].decode()
        if int(version.split(".")[0]) < _OLDEST_SERVER:
            raise ConfigError(
                f"the edit store at {self._name} is version {version!r}; it must be Redis 7.0,"
                " Valkey 7.2 or later"
            )
        await self._client.execute_command("SET", redis_keys.SCHEMA, redis_keys.SCHEMA_VERSION, "NX")
        schema = int(await self._client.execute_command("GET", redis_keys.SCHEMA))
        if schema > redis_keys.SCHEMA_VERSION:
            raise ConfigError(
                f"the edit store at {self._name} has schema version {schema}, and this gateway knows up to"
                f" {redis_keys.SCHEMA_VERSION}; install a newer serac_gateway"
            )
        await self._warn_if_edits_could_be_lost()

    async def _warn_if_edits_could_be_lost(self) -> None:
        try:
            settings = await self._client.execute_command("CONFIG GET", *_SETTINGS_THAT_KEEP_EDITS)
        except ResponseError:
            return  # not allowed to ask: whoever runs the server has decided
        unsafe = [
            f"{name.decode()} is {settings[name.decode()]!r} and should be {safe.decode()!r}"
            for name, safe in _SETTINGS_THAT_KEEP_EDITS.items()
            if settings.get(name.decode()) != safe.decode()
        ]
        if unsafe:
            log.warning("the edit store at %s may lose acknowledged edits: %s", self._name, ", ".join(unsafe))


def without_password(url: str) -> str:
    """The URL as it may be shown: no password, no query."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if at:
        user = f"{user.partition(':')[0]}:***" if ":" in user else user
    return parts._replace(netloc=f"{user}{at}{host}", query="", fragment="").geturl()


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
