"""Every store's outbox: what waits comes out in order, to a claimer at a time, and nothing grows for ever."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from serac_gateway.errors import StoreUnavailableError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.outbox import Added, Delivery, DeliveryState
from tests.contracts.served_stores import ServedStore

START = datetime(2026, 12, 1, tzinfo=UTC)


def delivery(number: int, webhook: str = "audit") -> Delivery:
    return Delivery(
        event_id=f"evt_{number:03}",
        webhook=webhook,
        type="proposal.opened",
        namespace="legal",
        created_at=START + timedelta(seconds=number),
        body='{"type":"Zoë"}',
    )


async def test_what_waits_is_claimed_once_oldest_first_and_again_when_the_lease_ends(
    edit_store: EditStore,
) -> None:
    outbox = edit_store.webhooks()
    for number in range(3):
        assert await outbox.add(delivery(number), max_waiting=9) is Added.ADDED
        await asyncio.sleep(0.002)
    first = await outbox.claim("audit", limit=2, lease_s=0.3)
    second = await outbox.claim("audit", limit=2, lease_s=60)
    assert list(first.deliveries) == [delivery(0), delivery(1)]
    assert list(second.deliveries) == [delivery(2)]
    assert (first.waiting, second.waiting) == (3, 3)
    assert second.next_in_s is not None
    assert 0 <= second.next_in_s <= 0.3
    await asyncio.sleep(0.35)
    third = await outbox.claim("audit", limit=9, lease_s=60)
    assert list(third.deliveries) == [delivery(0), delivery(1)]
    assert (await outbox.claim("other", limit=9, lease_s=60)).next_in_s is None


async def test_an_event_is_taken_once_and_no_more_than_may_wait(edit_store: EditStore) -> None:
    outbox = edit_store.webhooks()
    added = [await outbox.add(delivery(number), max_waiting=2) for number in (0, 0, 1, 2)]
    assert added == [Added.ADDED, Added.KNOWN, Added.ADDED, Added.FULL]
    assert await outbox.waiting("audit") == 2
    assert await outbox.add(delivery(2, "other"), max_waiting=2) is Added.ADDED
    await outbox.end(delivery(0))
    assert await outbox.add(delivery(0), max_waiting=2) is Added.KNOWN  # also once it has ended


async def test_a_postponed_one_waits_and_comes_back_as_it_was_left(edit_store: EditStore) -> None:
    outbox = edit_store.webhooks()
    await outbox.add(delivery(0), max_waiting=9)
    (claimed,) = (await outbox.claim("audit", limit=9, lease_s=60)).deliveries
    tried = msgspec.structs.replace(claimed, attempts=1, status=500, problem="status 500", last_at=START)
    await outbox.postpone(tried, pause_s=0.2)
    assert not (await outbox.claim("audit", limit=9, lease_s=60)).deliveries
    await asyncio.sleep(0.25)
    assert list((await outbox.claim("audit", limit=9, lease_s=60)).deliveries) == [tried]


async def test_what_ended_is_listed_without_its_body_and_cannot_come_back(edit_store: EditStore) -> None:
    outbox = edit_store.webhooks()
    for number in range(3):
        await outbox.add(delivery(number), max_waiting=9)
    ended = msgspec.structs.replace(delivery(1), state=DeliveryState.DELIVERED, attempts=1, status=204)
    await outbox.end(ended)
    await outbox.end(ended)  # twice, as two gateways may
    await outbox.postpone(delivery(1), pause_s=0)
    listed = await outbox.recent("audit", limit=9)
    assert [(item.event_id, item.state, item.body) for item in listed] == [
        ("evt_002", DeliveryState.WAITING, ""),
        ("evt_001", DeliveryState.DELIVERED, ""),
        ("evt_000", DeliveryState.WAITING, ""),
    ]
    assert len(await outbox.recent("audit", limit=1)) == 1
    claimed = await outbox.claim("audit", limit=9, lease_s=60)
    assert {item.event_id for item in claimed.deliveries} == {"evt_000", "evt_002"}
    assert await edit_store.namespaces() == []


async def test_a_lost_server_is_an_error_of_the_store(served: ServedStore) -> None:
    outbox = served.store.webhooks()
    await outbox.add(delivery(0), max_waiting=9)
    served.kill()
    with pytest.raises(StoreUnavailableError):
        await outbox.add(delivery(1), max_waiting=9)
    with pytest.raises(StoreUnavailableError):
        await outbox.claim("audit", limit=1, lease_s=1)
    await served.wait_until_back()
    claimed = await outbox.claim("audit", limit=9, lease_s=1)
    assert [item.event_id for item in claimed.deliveries] == ["evt_000"]
