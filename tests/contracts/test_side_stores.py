"""What every store keeps beside the edits: recorded traffic, verifications."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
import redis

from serac_gateway.domain.queries import Query
from serac_gateway.errors import InvalidRequestError, StoreUnavailableError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.ports import ProbeOutcome, RecordedQuery, Verification
from tests.contracts.served_stores import ServedStore

QUERIES = [
    RecordedQuery.of(Query(text=f"question {number}", context=("Zoë ünïcode",)), {"region": f"r{number}"})
    for number in range(5)
]


def verification(version: int = 1) -> Verification:
    probe = ProbeOutcome(
        probe="prompt", passed=False, failure="another edit governs", route="base", scope_probability=0.5
    )
    return Verification(
        edit_id="one", edit_version=version, at=datetime.now(UTC), passed=False, probes=[probe]
    )


class TestTraffic:
    async def test_the_latest_queries_come_back_newest_first(self, edit_store: EditStore) -> None:
        traffic = edit_store.traffic()
        await traffic.add("default", QUERIES[:2], max_queries=3, ttl_s=60)
        await traffic.add("default", QUERIES[2:], max_queries=3, ttl_s=60)
        assert await traffic.recent("default", max_queries=3, ttl_s=60) == QUERIES[:1:-1]
        assert await traffic.recent("default", max_queries=1, ttl_s=60) == [QUERIES[4]]

    async def test_namespaces_are_apart_and_an_unknown_one_is_empty(self, edit_store: EditStore) -> None:
        traffic = edit_store.traffic()
        await traffic.add("one", QUERIES, max_queries=9, ttl_s=60)
        assert await traffic.recent("other", max_queries=9, ttl_s=60) == []
        assert await traffic.clear("other") == 0

    async def test_a_query_is_neither_shown_nor_kept_after_its_time(self, edit_store: EditStore) -> None:
        traffic = edit_store.traffic()
        await traffic.add("default", QUERIES, max_queries=9, ttl_s=60)
        await asyncio.sleep(1.1)
        assert await traffic.recent("default", max_queries=9, ttl_s=1) == []
        await traffic.forget("default", ttl_s=1)
        assert await traffic.recent("default", max_queries=9, ttl_s=60) == []

    async def test_clearing_deletes_all_and_returns_how_many(self, edit_store: EditStore) -> None:
        traffic = edit_store.traffic()
        await traffic.add("default", QUERIES, max_queries=9, ttl_s=60)
        assert await traffic.clear("default") == 5
        assert await traffic.recent("default", max_queries=9, ttl_s=60) == []

    async def test_a_namespace_that_breaks_the_rules_reaches_no_key(self, edit_store: EditStore) -> None:
        with pytest.raises(InvalidRequestError):
            await edit_store.traffic().add("../x", QUERIES, max_queries=9, ttl_s=60)

    async def test_the_record_is_no_namespace_of_edits(self, edit_store: EditStore) -> None:
        await edit_store.traffic().add("default", QUERIES, max_queries=9, ttl_s=60)
        assert await edit_store.namespaces() == []


class TestVerifications:
    async def test_the_last_one_comes_back_as_it_was(self, edit_store: EditStore) -> None:
        kept = edit_store.verifications()
        assert await kept.get("default", "one") is None
        await kept.put("default", verification())
        newer = verification(2)
        await kept.put("default", newer)
        assert await kept.get("default", "one") == newer
        assert await kept.get("other", "one") is None

    @pytest.mark.parametrize(("namespace", "edit_id"), [("../x", "one"), ("default", "a b")])
    async def test_names_that_break_the_rules_reach_no_key(
        self, edit_store: EditStore, namespace: str, edit_id: str
    ) -> None:
        with pytest.raises(InvalidRequestError):
            await edit_store.verifications().get(namespace, edit_id)


async def test_the_whole_record_expires_by_itself_when_nothing_is_added(
    served: ServedStore, admin: redis.Redis
) -> None:
    await served.store.traffic().add("default", QUERIES, max_queries=9, ttl_s=60)
    assert 0 < admin.ttl("serac:{default}:traffic") <= 60


async def test_a_server_that_is_gone_is_reported_as_such(served: ServedStore) -> None:
    served.kill()
    with pytest.raises(StoreUnavailableError):
        await served.store.traffic().recent("default", max_queries=9, ttl_s=60)
    with pytest.raises(StoreUnavailableError):
        await served.store.verifications().put("default", verification())
