"""Several gateways on one store: who is there, and writing calls that wait for all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from serac_gateway.errors import StoreUnavailableError
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.ports import Replica
from tests.control_plane import ControlPlane, running_control_plane

DRAFT = {"prompt": "Who runs the harbour office of Marrowby?", "target_new": "Ottilie Brandvold"}
WAIT = {"x-serac-wait": "all"}


@pytest.fixture
def store() -> InMemoryEditStore:
    return InMemoryEditStore()


@pytest.fixture
def two(store: InMemoryEditStore) -> Iterator[tuple[ControlPlane, ControlPlane]]:
    with running_control_plane(store) as first, running_control_plane(store) as second:
        yield first, second


async def cut_off_replica(store: InMemoryEditStore) -> None:
    """One that is heard of, and applies nothing."""
    gone = Replica(id="gone", name="gone:1", started_at=datetime.now(UTC))
    await store.replicas().announce(gone, {}, ttl_s=60)


def in_scope(gateway: ControlPlane) -> bool:
    reply = gateway.client.post("/scope", json={"queries": [DRAFT["prompt"]]})
    return reply.json()["decisions"][0]["in_scope"]


def test_a_call_that_waits_for_all_is_in_force_in_all_when_it_returns(
    two: tuple[ControlPlane, ControlPlane],
) -> None:
    first, second = two
    for number in range(10):
        writer, reader = (first, second) if number % 2 else (second, first)
        draft = {"id": f"e{number}", "prompt": f"Question {number} of many?", "target_new": "x"}
        reply = writer.client.post("/edits", json=draft, headers=WAIT)
        assert (reply.status_code, reply.headers["x-serac-applied"]) == (201, "2/2")
        assert f"e{number}" in str(
            reader.client.post("/scope", json={"queries": [draft["prompt"]]}).json()["decisions"][0]
        )


def test_every_writing_call_can_wait(two: tuple[ControlPlane, ControlPlane]) -> None:
    first, second = two
    client, path = first.client, "/edits/a"
    any_version = WAIT | {"if-match": "*"}
    replies = [
        client.post("/edits", json={"id": "a"} | DRAFT, headers=WAIT),
        client.patch(path, json={"target_new": "Ilse Quennell"}, headers=any_version),
        client.post(f"{path}:rollback", json={"version": 1}, headers=any_version),
        client.delete(path, headers=any_version),
        client.post(f"{path}:restore", json={}, headers=any_version),
        client.post("/rollback", json={"log_id": "0-0"}, headers=WAIT),
        client.post(f"{path}:purge", json={"reason": "asked for"}, headers=any_version),
    ]
    assert [(reply.status_code, reply.headers.get("x-serac-applied")) for reply in replies] == [
        (201, "2/2"),
        *[(200, "2/2")] * 6,
    ]
    assert not in_scope(second)


def test_an_import_that_waits_ends_when_all_of_it_is_in_force_everywhere(
    two: tuple[ControlPlane, ControlPlane],
) -> None:
    first, second = two
    lines = "\n".join(
        f'{{"id": "e{number}", "prompt": "Question {number}?", "target_new": "x"}}' for number in range(200)
    )
    reply = first.client.post("/edits:import", content=lines, headers=WAIT)
    assert len(reply.text.splitlines()) == 200
    assert second.client.get("/stats").json()["edits"] == {"default": 200}


async def test_a_gateway_that_does_not_follow_is_waited_for_and_no_longer_than_allowed(
    store: InMemoryEditStore, two: tuple[ControlPlane, ControlPlane]
) -> None:
    await cut_off_replica(store)
    started_s = time.monotonic()
    reply = two[0].client.post("/edits", json=DRAFT, headers=WAIT)
    assert 0.5 < time.monotonic() - started_s < 5
    assert (reply.status_code, reply.headers["x-serac-applied"]) == (201, "2/3")
    assert in_scope(two[1])


async def test_without_the_header_nobody_is_waited_for(
    store: InMemoryEditStore, two: tuple[ControlPlane, ControlPlane]
) -> None:
    await cut_off_replica(store)
    started_s = time.monotonic()
    replies = [
        two[0].client.post("/edits", json=DRAFT),
        two[0].client.post("/edits", json=DRAFT, headers={"x-serac-wait": "local"}),
    ]
    assert time.monotonic() - started_s < 1.8, "each would have waited for a second"
    assert ["x-serac-applied" in reply.headers for reply in replies] == [False, False]


def test_another_word_for_waiting_is_refused_with_those_allowed(
    two: tuple[ControlPlane, ControlPlane],
) -> None:
    reply = two[0].client.post("/edits", json=DRAFT, headers={"x-serac-wait": "some"})
    assert reply.status_code == 400
    assert "x-serac-wait" in reply.text
    assert two[0].client.get("/edits").json()["edits"] == [], "refused before it was stored"


def test_a_store_that_fails_while_it_is_waited_leaves_the_edit_made(
    store: InMemoryEditStore, two: tuple[ControlPlane, ControlPlane]
) -> None:
    async def fails(namespace: str) -> str:
        raise StoreUnavailableError("gone")

    store.log_end = fails  # type: ignore[method-assign]
    reply = two[0].client.post("/edits", json=DRAFT, headers=WAIT)
    assert (reply.status_code, reply.headers["x-serac-applied"]) == (201, "unknown")


async def test_gateways_are_listed_with_what_they_have_not_applied(
    store: InMemoryEditStore, two: tuple[ControlPlane, ControlPlane]
) -> None:
    two[0].client.post("/edits", json=DRAFT, headers=WAIT)
    await cut_off_replica(store)
    listed = two[1].client.get("/replicas").json()["replicas"]
    assert [item["behind"] for item in listed] == [{"default": 0}, {"default": 0}, {"default": 1}]
    assert [item["is_this"] for item in listed] == [False, True, False]
    assert listed[2]["name"] == "gone:1"


def test_a_gateway_that_ends_is_not_waited_for(store: InMemoryEditStore) -> None:
    with running_control_plane(store) as first:
        with running_control_plane(store):
            assert len(first.client.get("/replicas").json()["replicas"]) == 2
        reply = first.client.post("/edits", json=DRAFT, headers=WAIT)
        assert reply.headers["x-serac-applied"] == "1/1"


def test_a_gateway_whose_edits_grow_old_is_not_ready_and_says_why(
    store: InMemoryEditStore, two: tuple[ControlPlane, ControlPlane]
) -> None:
    ready = two[0].url + "/health/ready"
    assert two[0].client.get(ready).status_code == 200

    async def fails(namespace: str, edit_ids: object, **more: object) -> list[object]:
        raise StoreUnavailableError("the network is down")

    stored_many, store.stored_many = store.stored_many, fails  # type: ignore[method-assign]
    two[1].client.post("/edits", json=DRAFT)
    two[0].gateway.context.follower._max_staleness_s = 0.8
    until_s = time.monotonic() + 5
    while "the network is down" not in (reply := two[0].client.get(ready)).text:
        assert time.monotonic() < until_s
        time.sleep(0.02)
    assert reply.status_code == 503
    assert "the network is down" in reply.json()["missing"]["edits"]
    assert two[0].client.get(two[0].url + "/health/live").status_code == 200
    store.stored_many = stored_many  # type: ignore[method-assign]
    while (reply := two[0].client.get(ready)).status_code != 200:
        assert time.monotonic() < until_s + 5
        time.sleep(0.02)
    assert in_scope(two[0])
