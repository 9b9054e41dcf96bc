"""What every store does with reports on requests."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from serac_gateway.domain.feedback import Feedback, FeedbackVerdict, RememberedRequest
from serac_gateway.errors import InvalidRequestError, StoreUnavailableError
from serac_gateway.stores.base import EditStore
from tests.contracts.served_stores import ServedStore


def report(number: int) -> Feedback:
    now = datetime.now(UTC)
    return Feedback(
        verdict=FeedbackVerdict.SHOULD_HAVE_FIRED,
        comment="Zoë ünïcode",
        at=now,
        request=RememberedRequest(
            request_id=f"r-{number}",
            at=now,
            route="base",
            reason="no candidate",
            edit_id=None,
            edit_version=None,
            nearest_edit_id="one",
            scope_probability=0.25,
            similarity=0.5,
            query="Who?",
        ),
    )


async def kept(store: EditStore, namespace: str) -> list[Feedback]:
    return [feedback async for feedback in store.feedback().all(namespace)]


async def test_the_latest_reports_come_back_as_they_were_oldest_first(edit_store: EditStore) -> None:
    reports = [report(number) for number in range(5)]
    for feedback in reports:
        await edit_store.feedback().add("default", feedback, max_reports=3)
    assert await kept(edit_store, "default") == reports[2:]


async def test_more_reports_than_are_read_at_once_all_come_back(edit_store: EditStore) -> None:
    for number in range(505):
        await edit_store.feedback().add("default", report(number), max_reports=1_000)
    reports = await kept(edit_store, "default")
    assert [feedback.request.request_id for feedback in reports] == [f"r-{number}" for number in range(505)]


async def test_namespaces_are_apart_and_clearing_one_leaves_the_others(edit_store: EditStore) -> None:
    for namespace in ("one", "two"):
        await edit_store.feedback().add(namespace, report(1), max_reports=9)
    assert await edit_store.feedback().clear("one") == 1
    assert (len(await kept(edit_store, "one")), len(await kept(edit_store, "two"))) == (0, 1)
    assert await edit_store.namespaces() == []


async def test_a_namespace_that_breaks_the_rules_reaches_no_key(edit_store: EditStore) -> None:
    with pytest.raises(InvalidRequestError):
        await edit_store.feedback().add("../x", report(1), max_reports=9)


async def test_a_server_that_is_gone_is_reported_as_such(served: ServedStore) -> None:
    served.kill()
    with pytest.raises(StoreUnavailableError):
        await served.store.feedback().add("default", report(1), max_reports=9)
