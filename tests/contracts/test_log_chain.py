"""Whoever changes a log or a version record in Redis is found out."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections.abc import Callable

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serac_gateway.domain.edits import purged, retired
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.log_chain import chained, fields_digest, genesis
from serac_gateway.stores.log_verification import BrokenLogError, verify_log
from serac_gateway.stores.records import Action, log_id_order
from serac_gateway.stores.redis.keys import NamespaceKeys
from tests.contracts.edit_store_calls import NS, add, commit_of, commit_of_all, new, next_of, update
from tests.contracts.served_stores import ServedStore

Entries = list[tuple[bytes, dict[bytes, bytes]]]
ONE_SERVER = pytest.mark.parametrize("served", ["redis_server"], indirect=True)


async def fill(store: EditStore, namespace: str = NS) -> None:
    """Eight entries: a has three versions, b is retired, c is purged, d and e came in one commit."""
    a, b, c, d, e = (new(edit_id, namespace=namespace, author="Ann\nBea") for edit_id in "abcde")
    await add(store, a)
    await update(store, next_of(a, target_new="Bea", author=None))
    await add(store, b)
    await store.commit(namespace, commit_of_all((Action.ADD, d), (Action.ADD, e)))
    await add(store, c)
    await store.commit(namespace, commit_of(Action.RETIRE, retired(b)))
    await store.commit(namespace, commit_of(Action.PURGE, purged(c)))


async def test_a_log_that_nobody_touched_is_verified_and_its_head_is_reported(edit_store: EditStore) -> None:
    assert (await verify_log(edit_store, NS)).length == 0
    await fill(edit_store)
    head = await verify_log(edit_store, NS)
    entries = await edit_store.log(NS)
    assert head == await edit_store.log_head(NS)
    assert (head.length, head.digest, head.log_id) == (8, entries[-1].digest, entries[-1].log_id)
    digests = [genesis(NS), *(entry.digest for entry in entries)]
    assert [(entry.previous_digest, entry.digest) for entry in entries] == list(itertools.pairwise(digests))
    await add(edit_store, new("later"))
    assert (await verify_log(edit_store, NS, expected=head.digest)).length == 9
    with pytest.raises(BrokenLogError, match="no entry has the expected digest"):
        await verify_log(edit_store, NS, expected="0" * 64)


async def test_the_digests_are_what_the_documentation_says(edit_store: EditStore) -> None:
    """Whoever wants to can verify a log without this program."""

    def sha256(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    await fill(edit_store)
    digest = sha256(b"serac log of namespace default")
    for entry in await edit_store.evidence(NS):
        if entry.stored is not None and entry.stored.salt is not None:
            content = sha256((entry.stored.salt + entry.stored.record).encode())
            assert entry.content_digest == content.hex()
        fields = [entry.action, entry.edit_id, str(entry.version), entry.content_digest, entry.author or ""]
        digest = sha256(digest + sha256("\n".join(fields).encode()) + entry.log_id.encode())
        assert entry.digest == digest.hex()


async def test_logs_of_two_namespaces_cannot_be_exchanged(edit_store: EditStore) -> None:
    await fill(edit_store, "one")
    await fill(edit_store, "two")
    first = (await edit_store.evidence("one"))[0]
    other = (await edit_store.evidence("two"))[0]
    assert (first.edit_id, first.version) == (other.edit_id, other.version)
    assert first.previous_digest != other.previous_digest


async def test_a_log_is_verified_while_others_write(edit_store: EditStore) -> None:
    await fill(edit_store)
    for number in range(20):
        verified, _ = (
            await verify_log(edit_store, NS),
            await add(edit_store, new(f"more{number}")),
        )
        assert verified.length == 8 + number


def entries_of(admin: redis.Redis, keys: NamespaceKeys) -> Entries:
    entries: Entries = admin.xrange(keys.log)
    return entries


def write(admin: redis.Redis, keys: NamespaceKeys, entries: Entries) -> None:
    admin.delete(keys.log)
    for log_id, fields in entries:
        admin.xadd(keys.log, fields, id=log_id)


Tampering = Callable[[redis.Redis, NamespaceKeys, int], None]


def changed_field(field: bytes, value: bytes) -> Tampering:
    def tamper(admin: redis.Redis, keys: NamespaceKeys, position: int) -> None:
        entries = entries_of(admin, keys)
        log_id, fields = entries[position]
        entries[position] = (log_id, {**fields, field: value})
        write(admin, keys, entries)

    return tamper


def missing_entry(admin: redis.Redis, keys: NamespaceKeys, position: int) -> None:
    admin.xdel(keys.log, entries_of(admin, keys)[position][0])


def missing_tail(admin: redis.Redis, keys: NamespaceKeys, position: int) -> None:
    admin.xdel(keys.log, *(log_id for log_id, _ in entries_of(admin, keys)[position:]))


def reordered(admin: redis.Redis, keys: NamespaceKeys, position: int) -> None:
    entries = entries_of(admin, keys)
    other = (position + 1) % len(entries)
    (first_id, first), (second_id, second) = entries[position], entries[other]
    entries[position], entries[other] = (first_id, second), (second_id, first)
    write(admin, keys, entries)


def inserted(admin: redis.Redis, keys: NamespaceKeys, position: int) -> None:
    entries = entries_of(admin, keys)
    log_id, fields = entries[position]
    between = log_id.partition(b"-")[0] + b"-77"
    forged = [*entries, (between, fields)]
    write(admin, keys, sorted(forged, key=lambda entry: log_id_order(entry[0].decode())))


def element_of(admin: redis.Redis, keys: NamespaceKeys, position: int) -> tuple[str, int]:
    _, fields = entries_of(admin, keys)[position]
    return keys.versions(fields[b"edit_id"].decode()), int(fields[b"version"]) - 1


def changed_record(admin: redis.Redis, keys: NamespaceKeys, position: int) -> None:
    key, index = element_of(admin, keys, position)
    admin.lset(key, index, admin.lindex(key, index).replace(b'"version":', b'"version": '))


def record_of_another(admin: redis.Redis, keys: NamespaceKeys, position: int) -> None:
    key, index = element_of(admin, keys, position)
    other, other_index = element_of(admin, keys, (position + 1) % 8)
    admin.lset(key, index, admin.lindex(other, other_index))


def record_that_is_no_json(admin: redis.Redis, keys: NamespaceKeys, position: int) -> None:
    key, index = element_of(admin, keys, position)
    admin.lset(key, index, b"\xff\xfe")


def missing_records(admin: redis.Redis, keys: NamespaceKeys, position: int) -> None:
    admin.delete(element_of(admin, keys, position)[0])


def record_without_entry(admin: redis.Redis, keys: NamespaceKeys, position: int) -> None:
    key, index = element_of(admin, keys, position)
    admin.rpush(key, admin.lindex(key, index))


def changed_head(admin: redis.Redis, keys: NamespaceKeys, position: int) -> None:
    admin.hset(keys.head, "digest", entries_of(admin, keys)[position][1][b"previous"])


def missing_head(admin: redis.Redis, keys: NamespaceKeys, position: int) -> None:
    admin.delete(keys.head)


TAMPERINGS: dict[str, Tampering] = {
    "other action": changed_field(b"action", b"rollback"),
    "unknown action": changed_field(b"action", b"\xff"),
    "other edit": changed_field(b"edit_id", b"z"),
    "no edit id": changed_field(b"edit_id", b"}:*"),
    "other version": changed_field(b"version", b"9"),
    "no version": changed_field(b"version", b"9" * 40),
    "other author": changed_field(b"author", b"Mallory"),
    "other content": changed_field(b"content", b"0" * 64),
    "other digest": changed_field(b"digest", b"0" * 64),
    "no digest": changed_field(b"digest", b""),
    "other previous": changed_field(b"previous", b"0" * 64),
    "missing entry": missing_entry,
    "missing tail": missing_tail,
    "reordered": reordered,
    "inserted": inserted,
    "changed record": changed_record,
    "another's record": record_of_another,
    "no JSON": record_that_is_no_json,
    "missing records": missing_records,
    "record without entry": record_without_entry,
    "changed head": changed_head,
    "missing head": missing_head,
}


@ONE_SERVER
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # each example has a namespace of its own
@given(tampering=st.sampled_from(sorted(TAMPERINGS)), position=st.integers(0, 7))
async def test_whatever_is_changed_in_redis_is_found(
    served: ServedStore, admin: redis.Redis, tampering: str, position: int
) -> None:
    namespace = f"n{time.monotonic_ns()}"
    await fill(served.store, namespace)
    await verify_log(served.store, namespace)
    TAMPERINGS[tampering](admin, NamespaceKeys(namespace), position)
    with pytest.raises(BrokenLogError) as error:
        await verify_log(served.store, namespace)
    assert re.search(r"(entry|number|edit) \S+", str(error.value)), "it says where"


@ONE_SERVER
async def test_the_message_names_the_entry_and_what_happened_to_it(
    served: ServedStore, admin: redis.Redis
) -> None:
    await fill(served.store)
    keys = NamespaceKeys(NS)
    before = entries_of(admin, keys)
    changed_field(b"author", b"Mallory")(admin, keys, 2)
    third = before[2][0].decode()
    with pytest.raises(BrokenLogError, match=rf"entry {third} \(add of edit 'b' version 1\) was changed"):
        await verify_log(served.store, NS)


@ONE_SERVER
async def test_content_that_goes_without_a_purge_is_missed(served: ServedStore, admin: redis.Redis) -> None:
    await fill(served.store)
    keys = NamespaceKeys(NS)
    tombstone_of_c = admin.lindex(keys.versions("c"), 0)
    admin.lset(keys.versions("e"), 0, tombstone_of_c.replace(b'"id":"c"', b'"id":"e"'))
    with pytest.raises(BrokenLogError, match="of edit 'e' is gone without a purge"):
        await verify_log(served.store, NS)


@ONE_SERVER
async def test_a_log_that_was_written_anew_as_a_whole_is_found_by_a_digest_noted_before(
    served: ServedStore, admin: redis.Redis
) -> None:
    await fill(served.store)
    keys, noted = NamespaceKeys(NS), await verify_log(served.store, NS)
    digest, anew = genesis(NS), []
    for log_id, fields in entries_of(admin, keys):
        own = fields_digest(
            action=fields[b"action"].decode(),
            edit_id=fields[b"edit_id"].decode(),
            version=int(fields[b"version"]),
            content_digest=fields[b"content"].decode(),
            author="Mallory",
        )
        previous, digest = digest, chained(digest, own, log_id.decode())
        forged = {b"author": b"Mallory", b"previous": previous.encode(), b"digest": digest.encode()}
        anew.append((log_id, {**fields, **forged}))
    write(admin, keys, anew)
    admin.hset(keys.head, "digest", digest)
    assert (await verify_log(served.store, NS)).length == 8, "no digest noted: nothing shows it"
    with pytest.raises(BrokenLogError, match="no entry has the expected digest"):
        await verify_log(served.store, NS, expected=noted.digest)


@ONE_SERVER
@pytest.mark.parametrize("damage", ["missing head", "entry after the head"])
async def test_nothing_is_written_to_a_log_whose_end_is_damaged(
    served: ServedStore, admin: redis.Redis, damage: str
) -> None:
    await fill(served.store)
    keys = NamespaceKeys(NS)
    if damage == "missing head":
        admin.delete(keys.head)
    else:
        admin.xadd(keys.log, {"action": "add"}, id="9999999999999-0")
    before = admin.dump(keys.log)
    with pytest.raises(Exception, match="damaged"):
        await add(served.store, new("z"))
    assert admin.dump(keys.log) == before
    assert not admin.exists(keys.versions("z"))
