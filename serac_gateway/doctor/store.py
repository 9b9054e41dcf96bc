"""The edit store: whether it answers, keeps what it acknowledged, and holds this encoder's vectors."""

from __future__ import annotations

from collections import Counter

from serac_gateway.doctor.findings import Finding, failure, fine, warning
from serac_gateway.domain.edits import EditState
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.checked_records import DamagedRecord
from serac_gateway.stores.redis.inspection import StoreFacts

_SLOW_MS = 20.0
"""A write takes several round trips."""
_SAMPLED = 100
"""Edits of a namespace whose vectors are looked at; `serac store check` looks at all."""


def store_findings(facts: StoreFacts) -> list[Finding]:
    """What is to be said of the server."""
    answer = f"{facts.name} is version {facts.version} and answers in {facts.latency_ms:.1f} ms"
    findings = [
        fine("store", answer)
        if facts.latency_ms <= _SLOW_MS
        else warning("store", answer, "put gateway and store closer together, or find out what slows it down")
    ]
    if not facts.is_current:
        findings.append(
            warning(
                "store",
                f"{facts.name} has the layout of another version",
                "stop the gateways of the older version, then start this one: it migrates the store",
            )
        )
    return findings + _persistence(facts)


def _persistence(facts: StoreFacts) -> list[Finding]:
    unsafe = facts.unsafe_settings
    if unsafe is None:
        return [
            warning(
                "persistence",
                f"the settings of {facts.name} may not be read by this user",
                "see yourself that appendonly is yes, appendfsync always, maxmemory-policy noeviction",
            )
        ]
    if not unsafe:
        return [fine("persistence", "every acknowledged edit is on the disk, and none is evicted")]
    detail = ", ".join(f"{name} is {value}" for name, (value, _) in unsafe.items())
    remedy = "; ".join(f"CONFIG SET {name} {safe}" for name, (_, safe) in unsafe.items())
    where = f"on the store `{remedy}`, and the same in its configuration file"
    if unsafe.keys() == {"appendfsync"} and unsafe["appendfsync"][0] == "everysec":
        return [
            warning("persistence", f"a crash can lose the last second's acknowledged edits: {detail}", where)
        ]
    return [failure("persistence", f"acknowledged edits can be lost: {detail}", where)]


async def encoder_findings(store: EditStore, fingerprint: str) -> list[Finding]:
    """Whether the vectors of stored edits are those of the encoder with that fingerprint, by a sample.

    Raises:
        StoreUnavailableError: The store failed.
    """
    foreign: Counter[str] = Counter()
    damaged: list[str] = []
    sampled = 0

    def note(record: DamagedRecord) -> None:
        damaged.append(record.edit_id)

    for namespace in await store.namespaces():
        page = await store.page(namespace, limit=_SAMPLED, state=EditState.LIVE, on_damaged=note)
        edits = await store.stored_many(namespace, [edit.id for edit in page.edits], on_damaged=note)
        sampled += len(edits)
        foreign[namespace] += sum(edit.vectors.fingerprint != fingerprint for edit in edits)
    findings = [
        failure(
            "index",
            f"{count} of the first edits of namespace {namespace!r} have another encoder's vectors",
            f"run `serac store reencode --namespace {namespace}` on the running gateway",
        )
        for namespace, count in foreign.items()
        if count
    ]
    if damaged:
        findings.append(
            failure(
                "index",
                f"{len(damaged)} records cannot be read",
                "run `serac store repair` on each namespace",
            )
        )
    return findings or [fine("index", f"{sampled} edits looked at have the vectors of encoder {fingerprint}")]
