"""A request sent twice with its idempotency key is made once, whatever other requests come meanwhile."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from serac_gateway.config.model import ConflictPolicy, RoutingConfig
from serac_gateway.errors import IdempotencyKeyReusedError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import Action, Commit, Receipt
from tests.contracts.edit_store_calls import NS, commit_of, new
from tests.control_plane import ControlPlane, running_control_plane
from tests.locked_gateway import running_locked_gateway

DRAFT = {"prompt": "Who runs the harbour office of Marrowby?", "target_new": "Ottilie Brandvold"}
KEY = {"idempotency-key": "k-1"}


class SlowStore(InMemoryEditStore):
    """Its replies take their time, as those of a store that is far away."""

    async def commit(self, namespace: str, commit: Commit) -> Receipt:
        await asyncio.sleep(0.1)
        receipt = await super().commit(namespace, commit)
        await asyncio.sleep(0.1)
        return receipt


@pytest.fixture(params=list(ConflictPolicy))
def two(request: pytest.FixtureRequest) -> Iterator[tuple[ControlPlane, ControlPlane]]:
    """Gateways on one store, under each policy for conflicts."""
    store, routing = SlowStore(), RoutingConfig(conflicts=request.param)
    with running_control_plane(store, routing) as first, running_control_plane(store, routing) as second:
        yield first, second


def at_once(gateways: list[ControlPlane], path: str, **more: object) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(gateways)) as pool:
        sent = [pool.submit(gateway.client.post, path, **more) for gateway in gateways]  # type: ignore[arg-type]
        return [sending.result() for sending in sent]


@pytest.mark.parametrize("path", ["/edits", "/edits?verify=true"])
def test_requests_that_come_at_once_are_made_once_and_all_answer_with_that_edit(
    two: tuple[ControlPlane, ControlPlane], path: str
) -> None:
    first, second = two
    replies = at_once([first, first, second, second], path, json=DRAFT, headers=KEY)
    assert [reply.status_code for reply in replies] == [201] * 4
    assert (
        len({(reply.json()["id"], reply.json()["created_at"], reply.headers["etag"]) for reply in replies})
        == 1
    )
    if "verify" in path:
        assert all(reply.json()["verified"]["probes"] for reply in replies)  # each has asked for itself
    assert len(first.client.get("/log").json()["entries"]) == 1


def test_one_of_two_bodies_that_come_at_once_with_one_key_is_refused(
    two: tuple[ControlPlane, ControlPlane],
) -> None:
    bodies = [DRAFT, DRAFT | {"prompt": "Who runs the lighthouse of Quillhaven?"}]
    with ThreadPoolExecutor(2) as pool:
        replies = list(
            pool.map(
                lambda pair: pair[0].client.post("/edits", json=pair[1], headers=KEY),
                zip(two, bodies, strict=True),
            )
        )
    assert sorted(reply.status_code for reply in replies) == [201, 422]
    assert len(two[0].client.get("/log").json()["entries"]) == 1


def test_a_file_that_two_gateways_import_at_once_is_imported_once(
    two: tuple[ControlPlane, ControlPlane],
) -> None:
    lines = [json.dumps({"id": f"e{n}", "prompt": f"Who runs {n}?", "target_new": "Jo"}) for n in range(4)]
    replies = at_once(list(two), "/edits:import", content="\n".join(lines))
    outcomes = [[json.loads(line) for line in reply.text.splitlines()] for reply in replies]
    for line in zip(*outcomes, strict=True):
        assert [outcome.get("version") for outcome in line] == [1, 1], line
        assert sorted(outcome["added"] for outcome in line) == [False, True]
    assert len(two[0].client.get("/log").json()["entries"]) == 4


def test_another_api_keys_repetition_is_another_request() -> None:
    with running_locked_gateway() as gateway:
        first, second = gateway.key("edit", "default"), gateway.key("edit", "default")

        def add(key: str) -> httpx.Response:
            return gateway.call(key, "POST", "/serac/v1/edits", json=DRAFT, headers=KEY)

        added = add(first)
        assert added.status_code == 201
        assert add(second).status_code == 422
        assert add(first).json() == added.json()


def test_of_two_bodies_under_one_key_that_two_threads_commit_at_once_one_is_refused() -> None:
    """The gateways of this test's store run in threads: looking for a receipt and committing is one step."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            store, together = InMemoryEditStore(), threading.Barrier(2)

            def commit(edit_id: str, store: EditStore = store, together: threading.Barrier = together) -> str:
                made = commit_of(Action.ADD, new(edit_id), key="k-1", fingerprint=edit_id)
                together.wait()
                try:
                    asyncio.run(store.commit(NS, made))
                except IdempotencyKeyReusedError:
                    return "refused"
                return "made"

            with ThreadPoolExecutor(2) as pool:
                assert sorted(pool.map(commit, "ab")) == ["made", "refused"]
            assert len(asyncio.run(store.log(NS))) == 1
    finally:
        sys.setswitchinterval(interval)
