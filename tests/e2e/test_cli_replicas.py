"""`serac replicas`, and `--wait all` on the commands that write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner, Result

from serac_gateway.cli.main import app
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.ports import Replica
from tests.control_plane import ControlPlane, running_control_plane

PROMPT, ANSWER = "Who runs the harbour office?", "Ottilie Brandvold"


@pytest.fixture
def store() -> InMemoryEditStore:
    return InMemoryEditStore()


@pytest.fixture(autouse=True)
def gateways(store: InMemoryEditStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ControlPlane]]:
    """Two on one store; SERAC_URL names the first."""
    with running_control_plane(store) as first, running_control_plane(store) as second:
        monkeypatch.setenv("SERAC_URL", first.url)
        yield [first, second]


def serac(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def cut_off_replica(store: InMemoryEditStore) -> None:
    gone = Replica(id="gone", name="gone:1", started_at=datetime.now(UTC))
    asyncio.run(announced(store, gone))


async def announced(store: InMemoryEditStore, replica: Replica) -> None:
    await store.replicas().announce(replica, {}, ttl_s=60)


def test_what_waits_for_all_is_in_force_in_the_other_gateway(gateways: list[ControlPlane]) -> None:
    added = serac("edits", "add", PROMPT, ANSWER, "--id", "harbour", "--wait", "all")
    assert (added.exit_code, added.stderr) == (0, "")
    assert gateways[1].client.get("/stats").json()["edits"] == {"default": 1}
    for command in (
        ("edits", "remove", "harbour"),
        ("edits", "restore", "harbour"),
        ("edits", "rollback", "harbour", "1"),
        ("rollback", "0-0", "--yes"),
        ("edits", "purge", "harbour", "--reason", "asked for", "--yes"),
    ):
        done = serac(*command, "--wait", "all")
        assert done.exit_code == 0, done.output
        assert "in force in" not in done.stderr
    assert gateways[1].client.get("/stats").json()["edits"] == {"default": 0}


def test_a_gateway_that_did_not_apply_it_in_time_is_named(store: InMemoryEditStore) -> None:
    cut_off_replica(store)
    added = serac("edits", "add", PROMPT, ANSWER, "--wait", "all", "--json")
    assert added.exit_code == 0
    assert json.loads(added.stdout)["version"] == 1
    assert "in force in 2 of 3 gateways" in added.stderr


def test_gateways_are_listed(store: InMemoryEditStore) -> None:
    serac("edits", "add", PROMPT, ANSWER)
    cut_off_replica(store)
    listed = json.loads(serac("replicas", "--json").stdout)
    assert [row["name"] for row in listed][2] == "gone:1"
    assert listed[2]["behind"] == {"default": 1}
    table = serac("replicas")
    assert table.exit_code == 0
    assert "default: 1" in table.stdout
    assert "(asked)" in table.stdout
