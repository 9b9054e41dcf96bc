"""A store with a server of its own, and what disks, or other writers, do to it behind the gateway's back."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np
import redis

from serac_gateway.domain.edits import Edit, EditDraft, EditKind, first_version, forms
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.log_chain import LogHead, chained, fields_digest
from serac_gateway.stores.records import Action, Change, Commit, FormVectors, log_id_order
from serac_gateway.stores.redis.keys import NamespaceKeys
from serac_gateway.stores.redis.records import packed_vectors
from serac_gateway.stores.redis.store import RedisStore
from tests.attacks.attacked_gateway import (
    EDITED_QUESTION,
    NEW_ANSWER,
    REFUSAL,
    SUPPRESSED_QUESTION,
    SeeingEncoder,
)

KEYS = NamespaceKeys("acme")
Damage = Callable[[redis.Redis], None]


@asynccontextmanager
async def store_of_two(folder: Path) -> AsyncIterator[EditStore]:
    """An embedded store in `folder` whose namespaces "acme" and "bolt" have a suppression and a fact."""
    store = await RedisStore.open_embedded(folder / "valkey")
    encoder = SeeingEncoder(SUPPRESSED_QUESTION, EDITED_QUESTION)
    try:
        if not await store.namespaces():
            for namespace in ("acme", "bolt"):
                for edit in edits_of(namespace):
                    await write(store, encoder, Action.ADD, edit)
        yield store
    finally:
        await store.close()


@contextmanager
def server_of(folder: Path) -> Iterator[redis.Redis]:
    """A client of the embedded server in `folder`."""
    with redis.Redis(unix_socket_path=str(folder / "valkey" / "valkey.sock")) as client:
        yield client


def edits_of(namespace: str) -> tuple[Edit, Edit]:
    hidden = EditDraft(id="hidden", kind=EditKind.SUPPRESSION, prompt=SUPPRESSED_QUESTION, target_new=REFUSAL)
    mayor = EditDraft(id="mayor", prompt=EDITED_QUESTION, target_new=NEW_ANSWER)
    return first_version(hidden, namespace=namespace), first_version(mayor, namespace=namespace)


async def write(store: EditStore, encoder: Encoder, action: Action, edit: Edit) -> None:
    vectors = FormVectors(fingerprint=encoder.fingerprint, vectors_FD=encoder.encode(forms(edit)))
    await store.commit(edit.namespace, Commit(changes=(Change(action=action, edit=edit, vectors=vectors),)))


def _in_both_places(client: redis.Redis, change: Callable[[bytes], bytes]) -> None:
    """The current record, and that of its version, which is read in its place."""
    client.hset(KEYS.current, "hidden", change(client.hget(KEYS.current, "hidden")))
    last = client.llen(KEYS.versions("hidden")) - 1
    client.lset(KEYS.versions("hidden"), last, change(client.lindex(KEYS.versions("hidden"), last)))


def torn(client: redis.Redis) -> None:
    _in_both_places(client, lambda record: record[: len(record) // 2])


def of_another_namespace(client: redis.Redis) -> None:
    _in_both_places(client, lambda record: record.replace(b'"namespace":"acme"', b'"namespace":"bolt"'))


def of_another_id(client: redis.Redis) -> None:
    _in_both_places(client, lambda record: record.replace(b'"id":"hidden"', b'"id":"mayor"'))


def of_another_version(client: redis.Redis) -> None:
    _in_both_places(client, lambda record: record.replace(b'"version":1', b'"version":-7'))


def blank_prompt(client: redis.Redis) -> None:
    _in_both_places(client, lambda record: record.replace(SUPPRESSED_QUESTION.encode(), b"  "))


def endless_prompt(client: redis.Redis) -> None:
    _in_both_places(client, lambda record: record.replace(SUPPRESSED_QUESTION.encode(), b"x" * 500_000))


def deep_json(client: redis.Redis) -> None:
    _in_both_places(client, lambda record: b"[" * 100_000)


def gone(client: redis.Redis) -> None:
    client.hdel(KEYS.current, "hidden")
    client.lset(KEYS.versions("hidden"), 0, b"")


def foreign_id(client: redis.Redis) -> None:
    client.zadd(KEYS.ids + ":live", {b"../..{x}\xff": 0})


def foreign_head(client: redis.Redis) -> None:
    client.hset(KEYS.head, "digest", "zz")


def head_of_another_type(client: redis.Redis) -> None:
    client.delete(KEYS.head)
    client.set(KEYS.head, "?")


def records_of_another_type(client: redis.Redis) -> None:
    client.delete(KEYS.current)
    client.set(KEYS.current, "?")


LOST: dict[str, Damage] = {
    damage.__name__: damage
    for damage in (
        torn, of_another_namespace, of_another_id, of_another_version, blank_prompt, endless_prompt,
        deep_json, gone, foreign_id, foreign_head, head_of_another_type, records_of_another_type,
    )
}  # fmt: skip
"""After each of these nobody knows all that is suppressed in acme."""


def _vectors(client: redis.Redis, vectors_FD: np.ndarray) -> None:
    vectors = FormVectors(fingerprint=SeeingEncoder().fingerprint, vectors_FD=vectors_FD)
    client.hset(KEYS.vectors, "hidden", packed_vectors(vectors))


def narrow_vectors(client: redis.Redis) -> None:
    _vectors(client, np.ones((1, 1), dtype=np.float32))


def nan_vectors(client: redis.Redis) -> None:
    _vectors(client, np.full((1, 64), np.nan, dtype=np.float32))


def too_many_vectors(client: redis.Redis) -> None:
    _vectors(client, np.eye(64, dtype=np.float32))


def torn_vectors(client: redis.Redis) -> None:
    client.hset(KEYS.vectors, "hidden", b"\x81")


def no_vectors(client: redis.Redis) -> None:
    client.hdel(KEYS.vectors, "hidden")


def torn_current_record(client: redis.Redis) -> None:
    client.hset(KEYS.current, "hidden", b'{"id":')


MADE_ANEW: dict[str, Damage] = {
    damage.__name__: damage
    for damage in (
        narrow_vectors, nan_vectors, too_many_vectors, torn_vectors, no_vectors, torn_current_record,
    )
}  # fmt: skip
"""After each of these the edit is read, or its vectors made, from what is sound."""


def write_torn_version(client: redis.Redis, head: LogHead) -> None:
    """A second version of acme's suppression, in one step and with a sound log entry, but torn."""
    record = b'{"id":"hidden","namespace":"acme","version":2,"state":"li'
    content = hashlib.sha256(record).hexdigest()
    fields = fields_digest(
        action=Action.UPDATE, edit_id="hidden", version=2, content_digest=content, author=None
    )
    log_id = f"{log_id_order(head.log_id)[0] + 1}-0"
    digest = chained(head.digest, fields, log_id)
    entry = {"action": "update", "edit_id": "hidden", "version": 2, "content": content}
    with client.pipeline() as pipe:
        pipe.xadd(KEYS.log, {**entry, "previous": head.digest, "digest": digest}, id=log_id)
        pipe.rpush(KEYS.versions("hidden"), record)
        pipe.hset(KEYS.current, "hidden", record)
        pipe.hset(KEYS.head, mapping={"log_id": log_id, "digest": digest, "length": head.length + 1})
        pipe.execute()
