"""Writes a namespace as a backup has it: every version, every log entry with its digest, every vector.

The log appears last, with its head, in one step: until then the namespace is not listed, refuses commits, and
a restore that was broken off is begun anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from typing_extensions import override

from serac_gateway.domain.edits import EditState
from serac_gateway.errors import InvalidRequestError
from serac_gateway.stores.errors import not_empty
from serac_gateway.stores.log_chain import LogEvidence, LogHead
from serac_gateway.stores.ports import NamespaceRestorer
from serac_gateway.stores.records import FormVectors
from serac_gateway.stores.redis.connection import RedisConnection, Word
from serac_gateway.stores.redis.keys import NAMESPACES, NamespaceKeys
from serac_gateway.stores.redis.records import edit_in, packed_vectors, packed_version

_RESTORING = "restoring"
"""Field of the head while the namespace is not whole."""
_DELETED_AT_A_TIME = 1_000

Commands = list[Sequence[Word]]


class RedisNamespaceRestorer(NamespaceRestorer):
    """Fills a namespace in Redis."""

    def __init__(self, connection: RedisConnection, namespace: str) -> None:
        """Use the connection, which stays the store's.

        Raises:
            InvalidRequestError: The namespace breaks the rules.
        """
        self._connection = connection
        self._namespace = namespace
        self._keys = NamespaceKeys(namespace)
        self._new_log = f"{self._keys.log}:restored"

    @override
    async def check_unused(self) -> None:
        keys = self._keys
        begun, exists = await self._connection.read_all(
            [("HEXISTS", keys.head, _RESTORING), ("EXISTS", keys.log, keys.head, keys.ids)]
        )
        if exists and not begun:
            raise not_empty(self._namespace)

    @override
    async def begin(self) -> None:
        await self.check_unused()
        if await self._connection.read("HEXISTS", self._keys.head, _RESTORING):
            await self.abandon()
        await self._write([("HSET", self._keys.head, _RESTORING, 1)])

    @override
    async def entries(self, entries: Sequence[LogEvidence]) -> None:
        commands: Commands = []
        for entry in entries:
            commands += self._entry_commands(entry)
        await self._write(commands)

    @override
    async def vectors(self, vectors: Mapping[str, FormVectors]) -> None:
        await self._write(
            [
                ("HSET", self._keys.vectors, edit_id, packed_vectors(form_vectors))
                for edit_id, form_vectors in vectors.items()
            ]
        )

    @override
    async def end(self, head: LogHead) -> None:
        keys = self._keys
        await self._connection.write("SADD", NAMESPACES, self._namespace, repeatable=False)
        whole = ("HSET", keys.head, "log_id", head.log_id, "digest", head.digest, "length", head.length)
        await self._write([("RENAME", self._new_log, keys.log), ("DEL", keys.head), whole])

    @override
    async def abandon(self) -> None:
        keys = self._keys
        while ids := await self._connection.read("ZRANGE", keys.ids, 0, _DELETED_AT_A_TIME - 1):
            names = [keys.versions(edit_id.decode()) for edit_id in ids]
            await self._write([("DEL", *names), ("ZREM", keys.ids, *ids)])
        by_state = (keys.ids_in(state) for state in EditState)
        # The head last: while it is there, `begin` knows that there is something to remove.
        await self._write([("DEL", self._new_log, keys.current, keys.vectors, *by_state), ("DEL", keys.head)])

    def _entry_commands(self, entry: LogEvidence) -> Commands:
        stored, keys = entry.stored, self._keys
        if stored is None:
            raise InvalidRequestError(f"log entry {entry.log_id!r} of the backup has no record")
        try:
            edit = edit_in(stored.record)
        except ValueError as exc:
            raise InvalidRequestError(
                f"log entry {entry.log_id!r} of the backup holds no edit: {exc}"
            ) from exc
        author: tuple[Word, ...] = () if entry.author is None else ("author", entry.author)
        approval: tuple[Word, ...] = () if entry.approval is None else ("approval", entry.approval)
        fields: tuple[Word, ...] = (
            "action",
            entry.action,
            "edit_id",
            entry.edit_id,
            "version",
            entry.version,
        )
        digests = ("content", entry.content_digest, "previous", entry.previous_digest, "digest", entry.digest)
        others = (state for state in EditState if state is not edit.state)
        return [
            # By its id, before all else: whatever is sent, `abandon` finds it.
            ("ZADD", keys.ids, 0, entry.edit_id),
            ("XADD", self._new_log, entry.log_id, *fields, *digests, *author, *approval),
            ("RPUSH", keys.versions(entry.edit_id), packed_version(stored)),
            ("HSET", keys.current, entry.edit_id, stored.record),
            ("ZADD", keys.ids_in(edit.state), 0, entry.edit_id),
            *(("ZREM", keys.ids_in(state), entry.edit_id) for state in others),
        ]

    async def _write(self, commands: Commands) -> None:
        if commands:
            await self._connection.write_all(commands, repeatable=False)
