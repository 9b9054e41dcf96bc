"""A few of the crash rounds; crash_rounds.py describes them and how to run many."""

from __future__ import annotations

import random
from pathlib import Path

import httpx
import pytest
import redis

from tests.contracts.served_stores import RedisServer
from tests.e2e.crash_rounds import Rounds, crash_rounds
from tests.e2e.crash_writers import Writers
from tests.e2e.gateway_on_store import gateway_on
from tests.http.wire import eventually

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("embedded", [False, True])
async def test_crashes_under_concurrent_writers_lose_nothing(tmp_path: Path, embedded: bool) -> None:
    rounds = Rounds(tmp_path, random.Random(11), None if embedded else RedisServer(tmp_path))
    try:
        await rounds.start()
        number = 0
        # On a busy machine some rounds end before anyone has purged.
        while number < 5 or (not rounds.purges and number < 20):
            assert await rounds.round(number) == []
            number += 1
        assert rounds.acknowledged > 20
        assert rounds.entries >= rounds.acknowledged
        assert rounds.purges > 0
    finally:
        await rounds.stop()


async def test_rounds_are_counted_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await crash_rounds(tmp_path, rounds=1, seed=3) == []
    assert "1 rounds:" in capsys.readouterr().out


async def test_what_is_lost_or_halved_is_noticed(tmp_path: Path) -> None:
    """The checks themselves: a store that lost a version, and one in which a commit is there in half."""
    server = RedisServer(tmp_path)
    server.start()
    try:
        async with gateway_on(server.url, tmp_path) as gateway:
            writers = Writers(str(gateway.client.base_url).rstrip("/"), "round-0", random.Random(1))
            writers.start()
            await eventually(lambda: writers.rollbacks_acknowledged > 1 and writers.purges_acknowledged, 60)
            await writers.stop()
            assert (await writers.lost(), await writers.halves(), await writers.unpurged()) == ([], [], [])
            edit_id = next(edit_id for edit_id in writers.acknowledged if edit_id not in writers.purged)
            with redis.Redis.from_url(server.url) as admin:
                admin.delete(f"serac:{{round-0}}:versions:{edit_id}")
                await assert_a_lost_rollback_is_noticed(gateway.client, writers)
                record = admin.hget("serac:{round-0-together}:current", "t3")
                assert record is not None
                admin.hset(
                    "serac:{round-0-together}:current", "t3", record.replace(b'"version":', b'"version":1')
                )
            assert any(edit_id in problem for problem in await writers.lost())
            assert len(await writers.halves()) == 1
            writers.purges_acknowledged.add(
                next(iter(writers.acknowledged.keys() - writers.purged - {edit_id}))
            )
            assert len(await writers.unpurged()) == 2  # its current version, and its history
    finally:
        server.kill()


async def assert_a_lost_rollback_is_noticed(client: httpx.AsyncClient, writers: Writers) -> None:
    log = (await client.get("/serac/v1/log", params={"limit": 1000}, headers=in_namespace(writers))).json()
    (edit, *_) = (
        await client.get("/serac/v1/edits", params={"limit": 1}, headers=in_namespace(writers))
    ).json()["edits"]
    other = "0-0" if edit["state"] == "live" else log["entries"][11]["log_id"]
    reply = await client.post("/serac/v1/rollback", json={"log_id": other}, headers=in_namespace(writers))
    assert reply.status_code == 200, reply.text
    assert ["a rollback to" in problem for problem in await writers.halves()] == [True]


def in_namespace(writers: Writers) -> dict[str, str]:
    return {"x-serac-namespace": writers.together}
