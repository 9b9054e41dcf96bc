"""`serac bench hostile`: that it sees a process stand still, and carries its attacks out."""

from __future__ import annotations

import os
import time

import pytest

from serac_gateway.cli.bench.hostile import hostile_load, running_probe
from serac_gateway.cli.bench.processes import Watched
from serac_gateway.cli.bench.wire import BenchError, Connection, Target
from serac_gateway.testing import serving

STALL_S = 0.4


async def stalling(scope: dict, receive: object, send: object) -> None:
    """Answers at once, but for /stall, where everything stands still."""
    assert callable(receive)
    assert callable(send)
    if scope["type"] != "http":
        return
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.disconnect":
        return
    if scope["path"] == "/stall":
        time.sleep(STALL_S)  # on the event loop, as is to be noticed
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def test_the_probe_sees_how_long_nothing_else_is_served() -> None:
    with serving(stalling) as url:
        target = Target(url=f"{url}/v1")
        with running_probe(target, os.getpid()) as probe:
            assert (await probe.seen()).peak_bytes > 1_000_000
            connection = await Connection.open(url)
            await connection.ask(target.post("/stall", {}))
            connection.close()
            assert (await probe.seen()).longest_stall_ms >= STALL_S * 500  # some of it may lie between probes


async def test_a_gateway_that_is_gone_is_an_error() -> None:
    with serving(stalling) as url:
        target = Target(url=f"{url}/v1")
        with running_probe(target, os.getpid()) as probe:
            await probe.seen()
            probe._process.kill()
            with pytest.raises(BenchError, match="does not answer"):
                await probe.seen()


async def test_every_attack_is_carried_out_and_judged() -> None:
    steps: list[str] = []
    with serving(stalling) as url:
        result = await hostile_load(
            Target(url=f"{url}/v1"), Watched(os.getpid()), scale=0.002, on_progress=steps.append
        )
    assert [cost.name for cost in result.costs] == steps
    assert len(steps) == 14
    assert all(cost.took_s > 0 and sum(cost.statuses.values()) > 0 for cost in result.costs)
    assert [aim.measure.split()[0] for aim in result.aims] == ["longest", "memory"]
