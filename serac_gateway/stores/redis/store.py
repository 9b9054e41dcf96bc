"""The edit store in Redis or Valkey. keys.py lists the keys, commit.lua makes the changes."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Self

import msgspec
from typing_extensions import override

from serac_gateway.auth.key_store import ApiKeyStore
from serac_gateway.domain.edits import (
    ACTIVE_STATES,
    Edit,
    EditState,
    check_edit_id,
    is_edit_id,
    is_namespace,
)
from serac_gateway.errors import ConfigError, StoreUnavailableError
from serac_gateway.stores.base import IDEMPOTENCY_TTL_S, EditStore
from serac_gateway.stores.checked_records import OnDamaged, refuse_damaged
from serac_gateway.stores.damage import NamespaceRepairer
from serac_gateway.stores.errors import (
    check_commit,
    check_replacements,
    damaged_log,
    id_purged,
    id_taken,
    key_reused,
    log_went_on,
    no_such_edit,
    no_such_proposal,
    proposal_went_on,
    stale_version,
)
from serac_gateway.stores.log_chain import LogEvidence, LogHead, VersionCount
from serac_gateway.stores.outbox import WebhookOutbox
from serac_gateway.stores.ports import (
    FeedbackStore,
    LogReader,
    NamespaceRestorer,
    ReplicaRegistry,
    TrafficStore,
    VerificationStore,
)
from serac_gateway.stores.proposals import ProposalStore
from serac_gateway.stores.records import (
    LOG_START,
    Action,
    Commit,
    Committed,
    Idempotency,
    Page,
    Receipt,
    StoredEdit,
    log_id_order,
)
from serac_gateway.stores.redis.api_keys import RedisApiKeyStore
from serac_gateway.stores.redis.clients import NO_TLS_FILES, TlsFiles
from serac_gateway.stores.redis.connection import RedisConnection, Word
from serac_gateway.stores.redis.edit_reader import EditReader
from serac_gateway.stores.redis.embedded_valkey import EmbeddedValkey
from serac_gateway.stores.redis.feedback import RedisFeedbackStore
from serac_gateway.stores.redis.keys import BACKUP_SECRET, NAMESPACES, SCHEMA, NamespaceKeys
from serac_gateway.stores.redis.log_reader import RedisLogReader
from serac_gateway.stores.redis.migration import prepare_schema
from serac_gateway.stores.redis.outbox import RedisWebhookOutbox
from serac_gateway.stores.redis.proposals import RedisProposalStore
from serac_gateway.stores.redis.records import (
    commit_arguments,
    commit_keys,
    committed,
    log_evidence,
    log_head,
    log_order_lines,
    packed_vectors,
    salted_fingerprint,
    version_record,
)
from serac_gateway.stores.redis.repairer import RedisNamespaceRepairer
from serac_gateway.stores.redis.replicas import RedisReplicaRegistry
from serac_gateway.stores.redis.restorer import RedisNamespaceRestorer
from serac_gateway.stores.redis.traffic import RedisTrafficStore
from serac_gateway.stores.redis.trials import RedisTrialStore
from serac_gateway.stores.redis.verifications import RedisVerificationStore
from serac_gateway.stores.trials import TrialStore

log = logging.getLogger(__name__)

_SNAPSHOT_BATCH = 256
"""About 1 MB with three forms of 384 dimensions an edit: a millisecond of the server's time."""
_LOG_ORDER_BATCH = 2_000


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
        self._script = connection.script(_script_text("sha256.lua") + _script_text("commit.lua"))
        self._log_order_script = connection.script(_script_text("log_order.lua"))
        self._replace_vectors_script = connection.script(_script_text("replace_vectors.lua"))

    @classmethod
    async def open(
        cls, url: str, *, idempotency_ttl_s: int = IDEMPOTENCY_TTL_S, tls: TlsFiles = NO_TLS_FILES
    ) -> Self:
        """A store at a URL; clients.py lists the forms.

        Raises:
            ConfigError: It cannot be reached or used; the message has the remedy, and no password.
        """
        connection = await RedisConnection.open(url, tls=tls)
        return await cls._open(connection, server=None, idempotency_ttl_s=idempotency_ttl_s)

    @classmethod
    async def open_embedded(cls, folder: Path, *, idempotency_ttl_s: int = IDEMPOTENCY_TTL_S) -> Self:
        """A store in a Valkey of its own, which lives in `folder` and ends with the store.

        Raises:
            ConfigError: The server cannot be started there; the message has the remedy.
        """
        server = await EmbeddedValkey.start(folder)
        try:
            connection = await RedisConnection.open(
                server.url, name=server.name, problem=lambda: server.problem
            )
        except BaseException:
            await server.stop()
            raise
        return await cls._open(connection, server=server, idempotency_ttl_s=idempotency_ttl_s)

    @classmethod
    async def _open(
        cls, connection: RedisConnection, *, server: EmbeddedValkey | None, idempotency_ttl_s: int
    ) -> Self:
        store = cls(connection, server=server, idempotency_ttl_s=idempotency_ttl_s)
        try:
            await prepare_schema(connection)
        except StoreUnavailableError as exc:
            await store.close()
            raise ConfigError(f"the layout of the edit store cannot be checked: {exc.message}") from exc
        except BaseException:
            await store.close()
            raise
        return store

    @override
    async def commit(self, namespace: str, commit: Commit) -> Receipt:
        check_commit(namespace, commit)
        keys = NamespaceKeys(namespace)
        older = {
            change.edit.id: await EditReader(self._connection, namespace).tombstones(change.edit)
            for change in commit.changes
            if change.action is Action.PURGE
        }
        if older and self._server is not None:
            await self._server.eraser.announce()
        script_keys = commit_keys(keys, commit)
        arguments = commit_arguments(namespace, commit, ttl_s=self._idempotency_ttl_s, older=older)
        reply = await self._connection.run(self._run_commit(namespace, script_keys, arguments))
        match reply:
            case [b"committed" | b"replayed" as outcome, receipt]:
                if older:
                    await self._forget_on_disk()
                return Receipt(changes=committed(receipt), replayed=outcome == b"replayed")
            case [b"key_reused"]:
                raise key_reused(commit.idempotency)
            case [b"id_taken", edit_id]:
                current = await self.get(namespace, edit_id.decode())
                purged = current.state is EditState.PURGED
                raise (id_purged if purged else id_taken)(edit_id.decode())
            case [b"no_such_edit", edit_id]:
                raise no_such_edit(namespace, edit_id.decode())
            case [b"stale_version", edit_id, version, current_version]:
                raise stale_version(edit_id.decode(), expected=int(version) - 1, current=int(current_version))
            case [b"log_went_on", log_id]:
                raise log_went_on(expected=commit.expected_log_id or "", current=log_id.decode())
            case [b"proposal_went_on", revision]:
                assert commit.closes is not None
                proposal_id, expected = commit.closes.proposal_id, commit.closes.revision - 1
                if not revision:
                    raise no_such_proposal(namespace, proposal_id)
                raise proposal_went_on(proposal_id, expected=expected, current=int(revision))
            case [b"damaged", what]:
                raise damaged_log(namespace, what.decode())
        raise AssertionError(f"commit.lua replied {reply!r}")

    @override
    async def receipt(self, namespace: str, idempotency: Idempotency) -> Receipt | None:
        key = NamespaceKeys(namespace).result(idempotency)
        fingerprint, receipt = await self._connection.read("HMGET", key, "fingerprint", "receipt")
        if fingerprint is None:
            return None
        if fingerprint.decode() != salted_fingerprint(idempotency):
            raise key_reused(idempotency)
        return Receipt(changes=committed(receipt), replayed=True)

    @override
    async def get(self, namespace: str, edit_id: str, *, version: int | None = None) -> Edit:
        reader = EditReader(self._connection, namespace)
        check_edit_id(edit_id)
        return await (reader.current(edit_id) if version is None else reader.version(edit_id, version))

    @override
    async def versions(self, namespace: str, edit_id: str) -> list[Edit]:
        versions = await EditReader(self._connection, namespace).versions(edit_id)
        if not versions:
            raise no_such_edit(namespace, edit_id)
        return versions

    @override
    async def page(
        self,
        namespace: str,
        *,
        cursor: str | None = None,
        limit: int = 100,
        state: EditState | None = None,
        on_damaged: OnDamaged | None = None,
    ) -> Page:
        keys, reader = NamespaceKeys(namespace), EditReader(self._connection, namespace)
        matching = await reader.ids(
            keys.ids if state is None else keys.ids_in(state),
            after=None if cursor is None else check_edit_id(cursor),
            limit=limit + 1,
        )
        ids = matching[:limit]
        edits = await reader.page(ids, state=state, on_damaged=on_damaged or refuse_damaged(namespace))
        return Page(edits=edits, next_cursor=ids[-1].decode() if len(matching) > limit else None)

    @override
    async def snapshot(
        self, namespace: str, *, on_damaged: OnDamaged | None = None
    ) -> AsyncIterator[StoredEdit]:
        keys, reader = NamespaceKeys(namespace), EditReader(self._connection, namespace)
        on_damaged = on_damaged or refuse_damaged(namespace)
        for state in ACTIVE_STATES:
            after: str | None = None
            while ids := await reader.ids(keys.ids_in(state), after=after, limit=_SNAPSHOT_BATCH):
                for stored in await reader.stored(ids, on_damaged=on_damaged):
                    if stored is not None and stored.edit.state is state:
                        yield stored
                after = ids[-1].decode()

    @override
    async def stored(self, namespace: str, edit_id: str) -> StoredEdit:
        reader, raw_id = EditReader(self._connection, namespace), check_edit_id(edit_id).encode()
        [stored] = await reader.stored([raw_id], on_damaged=refuse_damaged(namespace))
        if stored is None:
            raise no_such_edit(namespace, edit_id)
        return stored

    @override
    async def stored_many(
        self, namespace: str, edit_ids: Sequence[str], *, on_damaged: OnDamaged | None = None
    ) -> list[StoredEdit]:
        ids = [check_edit_id(edit_id).encode() for edit_id in edit_ids]
        reader = EditReader(self._connection, namespace)
        edits = await reader.stored(ids, on_damaged=on_damaged or refuse_damaged(namespace)) if ids else []
        return [stored for stored in edits if stored is not None]

    @override
    async def replace_vectors(self, namespace: str, replacements: Sequence[StoredEdit]) -> int:
        check_replacements(namespace, replacements)
        keys = NamespaceKeys(namespace)
        arguments: list[Word] = []
        for replacement in replacements:
            arguments += (replacement.edit.id, replacement.edit.version, packed_vectors(replacement.vectors))
        script_keys = [keys.vectors, *(keys.versions(replacement.edit.id) for replacement in replacements)]
        count: int = await self._connection.run(
            self._replace_vectors_script(keys=script_keys, args=arguments)
        )
        return count

    @override
    async def log_end(self, namespace: str) -> str:
        entries = await self._connection.read("XREVRANGE", NamespaceKeys(namespace).log, "+", "-", "COUNT", 1)
        return entries[0][0].decode() if entries else LOG_START

    @override
    async def log_head(self, namespace: str) -> LogHead:
        keys = NamespaceKeys(namespace)
        return log_head(
            namespace, await self._connection.read("HMGET", keys.head, "log_id", "digest", "length")
        )

    @override
    async def evidence(
        self, namespace: str, *, after: str = LOG_START, limit: int = 100
    ) -> list[LogEvidence]:
        log_id_order(after)
        keys = NamespaceKeys(namespace)
        entries = await self._connection.read("XRANGE", keys.log, f"({after}", "+", "COUNT", limit)
        evidence = [log_evidence(log_id, fields) for log_id, fields in entries]
        # What damage has made of an entry may name no version at all.
        named = [entry for entry in evidence if entry.version and is_edit_id(entry.edit_id)]
        elements = await self._connection.read_all(
            ("LINDEX", keys.versions(entry.edit_id), entry.version - 1) for entry in named
        )
        stored = {entry.log_id: element for entry, element in zip(named, elements, strict=True) if element}
        return [
            msgspec.structs.replace(entry, stored=version_record(stored[entry.log_id]))
            if entry.log_id in stored
            else entry
            for entry in evidence
        ]

    @override
    async def version_log_ids(self, namespace: str) -> AsyncIterator[Committed]:
        key, after = NamespaceKeys(namespace).log, LOG_START
        while True:
            last, lines = await self._connection.run(
                self._log_order_script(keys=[key], args=[after, _LOG_ORDER_BATCH])
            )
            for committed_version in log_order_lines(lines):
                yield committed_version
            if not last:
                return
            after = last.decode()

    @override
    async def version_counts(self, namespace: str) -> AsyncIterator[VersionCount]:
        keys, reader = NamespaceKeys(namespace), EditReader(self._connection, namespace)
        after: str | None = None
        while ids := [
            edit_id.decode() for edit_id in await reader.ids(keys.ids, after=after, limit=_SNAPSHOT_BATCH)
        ]:
            counts = await self._connection.read_all(("LLEN", keys.versions(edit_id)) for edit_id in ids)
            for edit_id, count in zip(ids, counts, strict=True):
                yield VersionCount(edit_id=edit_id, versions=count)
            after = ids[-1]

    @override
    async def namespaces(self) -> list[str]:
        # One whose first commit failed is in the set, but has no log.
        names = await self._connection.read("SMEMBERS", NAMESPACES)
        texts = sorted(name.decode("utf-8", "replace") for name in names)
        tried = [text for text in texts if is_namespace(text)]
        if len(tried) < len(texts):
            log.error("%d names in the set of namespaces are no names of namespaces", len(texts) - len(tried))
        exist = await self._connection.read_all(("EXISTS", NamespaceKeys(name).log) for name in tried)
        return [name for name, exists in zip(tried, exist, strict=True) if exists]

    @override
    def log_reader(self) -> LogReader:
        return RedisLogReader(self._connection.another())

    @override
    def api_keys(self) -> ApiKeyStore:
        return RedisApiKeyStore(self._connection)

    @override
    def traffic(self) -> TrafficStore:
        return RedisTrafficStore(self._connection)

    @override
    def feedback(self) -> FeedbackStore:
        return RedisFeedbackStore(self._connection)

    @override
    def trials(self) -> TrialStore:
        return RedisTrialStore(self._connection)

    @override
    def webhooks(self) -> WebhookOutbox:
        return RedisWebhookOutbox(self._connection)

    @override
    def proposals(self) -> ProposalStore:
        return RedisProposalStore(self._connection, idempotency_ttl_s=self._idempotency_ttl_s)

    @override
    def verifications(self) -> VerificationStore:
        return RedisVerificationStore(self._connection)

    @override
    def replicas(self) -> ReplicaRegistry:
        return RedisReplicaRegistry(self._connection)

    @override
    def restorer(self, namespace: str) -> NamespaceRestorer:
        return RedisNamespaceRestorer(self._connection, namespace)

    @override
    def repairer(self, namespace: str) -> NamespaceRepairer:
        return RedisNamespaceRepairer(self._connection, namespace)

    @override
    async def backup_secret(self) -> bytes:
        await self._connection.write("SET", BACKUP_SECRET, secrets.token_bytes(32), "NX", repeatable=True)
        secret: bytes = await self._connection.read("GET", BACKUP_SECRET)
        return secret

    @property
    @override
    def has_pending_purge(self) -> bool:
        return self._server is not None and self._server.eraser.is_pending

    @override
    async def ping(self) -> None:
        await self._connection.read("EXISTS", SCHEMA)  # a PING goes to all of a cluster

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
            await self._connection.send("SADD", NAMESPACES, namespace)
            reply = await self._script(keys=keys, args=[*args, "1"])
        return reply

    async def _forget_on_disk(self) -> None:
        """Have our own server write its append-only file anew, without what was purged.

        Other people's servers do that when they see fit: it costs them a copy of all their data.
        """
        if self._server is not None and not await self._server.eraser.erase():
            log.warning("what was purged is not off the disk yet; the rewrite goes on")


def _script_text(name: str) -> str:
    return resources.files(__package__).joinpath("scripts", name).read_text("utf-8")
