"""After a purge, nothing in the server holds the content any more."""

from __future__ import annotations

import hashlib
import itertools
import time

import redis

from serac_gateway.domain.edits import Attribution, purged
from serac_gateway.domain.vectors import vectors_to_bytes
from serac_gateway.stores.log_verification import verify_log
from serac_gateway.stores.records import Action
from tests.contracts.edit_store_calls import NS, add, commit_of, new, next_of, unit_vectors, update
from tests.contracts.served_stores import RedisServed, ServedStore

SECRETS = ["Zaphod", "Beeblebrox", "Betelgeuse", "Trillian", "gossip", "tabloid"]


def everything(admin: redis.Redis) -> bytes:
    """Every key and every value, in whatever structure it lies."""
    contents = []
    for key in admin.scan_iter("*"):
        match admin.type(key):
            case b"string":
                contents += [key, admin.get(key)]
            case b"hash":
                contents += [key, *itertools.chain(*admin.hgetall(key).items())]
            case b"list":
                contents += [key, *admin.lrange(key, 0, -1)]
            case b"set":
                contents += [key, *admin.smembers(key)]
            case b"zset":
                contents += [key, *admin.zrange(key, 0, -1)]
            case b"stream":
                for log_id, fields in admin.xrange(key):
                    contents += [key, log_id, *itertools.chain(*fields.items())]
            case other:
                raise AssertionError(f"the test does not know {other!r}")
    return b"\n".join(contents)


async def test_no_value_in_redis_holds_the_content_its_vectors_or_what_would_confirm_a_guess(
    served: ServedStore, admin: redis.Redis
) -> None:
    await add(served.store, new("kept", target_new="Marvin"))
    first = new(
        "a",
        prompt="Who is Zaphod?",
        target_new="Beeblebrox",
        target_true="Trillian",
        subject="Betelgeuse",
        paraphrases=("Zaphod who?",),
        reason="gossip",
        source="tabloid",
    )
    fingerprint = hashlib.sha256(b"the body with Zaphod").hexdigest()
    await add(served.store, first, key="k", fingerprint=fingerprint)
    await update(served.store, next_of(first, target_new="Beeblebrox again"), seed=1)
    vectors = vectors_to_bytes(unit_vectors(seed=1))
    before = everything(admin)
    assert all(secret.encode() in before for secret in SECRETS)
    assert vectors in before
    evidence = await served.store.evidence(NS)
    salts = [entry.stored.salt for entry in evidence if entry.edit_id == "a" and entry.stored is not None]

    await served.store.commit(
        NS, commit_of(Action.PURGE, purged(next_of(first), Attribution(reason="request 4711")))
    )
    after = everything(admin)
    assert [secret for secret in SECRETS if secret.encode() in after] == []
    assert vectors not in after
    assert fingerprint.encode() not in after
    assert [salt for salt in salts if salt is None or salt.encode() in after] == []
    assert b"Marvin" in after
    assert (await verify_log(served.store, NS)).length == 4


async def test_the_append_only_file_is_free_of_it_after_it_was_rewritten(
    served: ServedStore, admin: redis.Redis
) -> None:
    """The purge has our own server rewrite its file; on others their operator does."""
    admin.config_set("aof-use-rdb-preamble", "no")  # plain text, so that the test can look for it
    first = new("a", prompt="Who is Zaphod?")
    await add(served.store, first)

    def on_disk() -> bytes:
        return b"".join(path.read_bytes() for path in served.folder.rglob("*.aof"))

    assert b"Zaphod" in on_disk()
    await served.store.commit(NS, commit_of(Action.PURGE, purged(first)))
    if isinstance(served, RedisServed):
        admin.bgrewriteaof()
    deadline = time.monotonic() + 20
    while b"Zaphod" in on_disk():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert b'"state":"purged"' in on_disk()
