"""Brings a store of an older layout up to this one, and refuses one of a newer layout.

From schema 1 to 2: the log is chained by hash. Every entry is copied to a new log with its digest, every
version gets a salt, and the new log takes the old one's place, one namespace after the other. It goes on
where it was broken off. Gateways of schema 1 must be stopped before: they do not know of the chain.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from importlib import resources

from serac_gateway.errors import ConfigError
from serac_gateway.stores.log_chain import chained, empty_head, fields_digest, sealed
from serac_gateway.stores.redis.connection import RedisConnection, Word
from serac_gateway.stores.redis.keys import MIGRATING, NAMESPACES, SCHEMA, SCHEMA_VERSION, NamespaceKeys
from serac_gateway.stores.redis.records import edit_in, log_head, packed_version, version_record

log = logging.getLogger(__name__)

_BATCH = 500
_LOCK_MS = 30_000
_WAIT_S = 0.2


async def prepare_schema(connection: RedisConnection) -> None:
    """Return when the store has this gateway's layout.

    Raises:
        ConfigError: It has a newer one, or is damaged; the message has the remedy.
        StoreUnavailableError: The server failed; call again to go on.
    """
    await connection.write("SET", SCHEMA, SCHEMA_VERSION, "NX", repeatable=False)
    while (schema := int(await connection.read("GET", SCHEMA))) < SCHEMA_VERSION:
        token = secrets.token_hex(8)
        locked = await connection.write("SET", MIGRATING, token, "NX", "PX", _LOCK_MS, repeatable=False)
        if locked is None:
            await asyncio.sleep(_WAIT_S)  # another gateway is at it
            continue
        try:
            await _migrate_from_1(connection)
            await connection.write("SET", SCHEMA, SCHEMA_VERSION, repeatable=False)
        finally:
            if await connection.read("GET", MIGRATING) == token.encode():
                await connection.write("DEL", MIGRATING, repeatable=False)
    if schema > SCHEMA_VERSION:
        raise ConfigError(
            f"the edit store at {connection.name} has schema version {schema}, and this gateway knows up to"
            f" {SCHEMA_VERSION}; install a newer serac_gateway"
        )


async def _migrate_from_1(connection: RedisConnection) -> None:
    namespaces = sorted(name.decode() for name in await connection.read("SMEMBERS", NAMESPACES))
    for namespace in namespaces:
        keys = NamespaceKeys(namespace)
        chained_already, exists = await connection.read_all([("EXISTS", keys.head), ("EXISTS", keys.log)])
        if exists and not chained_already:
            length = await _chain(connection, namespace)
            log.info("namespace %s: chained the %d entries of its log by hash", namespace, length)


async def _chain(connection: RedisConnection, namespace: str) -> int:
    keys = NamespaceKeys(namespace)
    new_log, new_head = f"{keys.log}:2", f"{keys.head}:2"
    script = connection.script(
        resources.files(__package__).joinpath("scripts", "migrate_1_to_2.lua").read_text("utf-8")
    )
    while True:
        stored = await connection.read("HMGET", new_head, "log_id", "digest", "length")
        head = log_head(namespace, stored)
        after = "-" if head == empty_head(namespace) else f"({head.log_id}"
        entries = await connection.read("XRANGE", keys.log, after, "+", "COUNT", _BATCH)
        versions, arguments = await _batch(connection, namespace, entries, head.digest)
        digest = arguments.pop() if entries else head.digest
        done = await connection.run(
            script(
                keys=[keys.log, new_log, new_head, keys.head, *versions],
                args=[(stored[0] or b"").decode(), digest, head.length + len(entries), *arguments],
            )
        )
        await connection.write("PEXPIRE", MIGRATING, _LOCK_MS, repeatable=False)
        if done and not entries:
            return head.length


async def _batch(
    connection: RedisConnection,
    namespace: str,
    entries: list[tuple[bytes, dict[bytes, bytes]]],
    digest: str,
) -> tuple[list[str], list[Word]]:
    """The versions' keys and the script's arguments for `entries`, the digest after them last."""
    keys = NamespaceKeys(namespace)
    named = [(fields[b"edit_id"].decode(), int(fields[b"version"])) for _, fields in entries]
    elements = await connection.read_all(
        ("LINDEX", keys.versions(edit_id), version - 1) for edit_id, version in named
    )
    arguments: list[Word] = []
    for (log_id, fields), (edit_id, version), element in zip(entries, named, elements, strict=True):
        if element is None:
            raise ConfigError(
                f"the edit store at {connection.name} is damaged: its log names version {version} of edit"
                f" {edit_id!r} in namespace {namespace!r}, which is not there; restore it from a backup"
            )
        edit = edit_in(version_record(element).record)
        sealed_version = sealed(edit)
        action, content = fields[b"action"].decode(), sealed_version.content_digest
        own = fields_digest(
            action=action, edit_id=edit_id, version=version, content_digest=content, author=edit.author
        )
        previous, digest = digest, chained(digest, own, log_id.decode())
        entry: list[Word] = ["action", action, "edit_id", edit_id, "version", version]
        entry += ["content", content, "previous", previous, "digest", digest]
        entry += [] if edit.author is None else ["author", edit.author]
        arguments += [log_id, version - 1, packed_version(sealed_version), len(entry), *entry]
    return [keys.versions(edit_id) for edit_id, _ in named], [*arguments, digest]
