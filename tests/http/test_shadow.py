"""A scope classifier on trial: it decides beside the one in force, is counted, and never applied."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from serac_gateway.observability import shadow as shadows
from tests.http.reloadable_gateway import ReloadableGateway, reloadable_gateway, write_calibration
from tests.http.wire import eventually, fetch

QUESTION = "Who is the mayor of Springfield?"
NEAR = "Who was the mayor of Springfield?"


@pytest.fixture
def strict(tmp_path: Path) -> Path:
    """Weights that fire on nothing but an edit's own words."""
    write_calibration(tmp_path / "strict", scope_threshold=0.99)
    return tmp_path / "strict"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[ReloadableGateway]:
    async with reloadable_gateway(tmp_path) as running:
        await running.add(QUESTION)
        yield running


def on_trial(folder: Path | str, more: str = "") -> str:
    return f'models.scope_classifier_shadow = "{folder}"\n{more}'


async def report(gateway: ReloadableGateway) -> dict[str, Any] | None:
    reply = await fetch(gateway.url, "/serac/v1/shadow", method="GET")
    assert reply.status == 200, reply.body
    return reply.json["shadow"]


async def decided(gateway: ReloadableGateway, **expected: int) -> dict[str, Any]:
    """The report, once its counts are those expected."""
    latest: dict[str, Any] = {}

    async def counts() -> dict[str, int]:
        latest.update(await report(gateway) or {})
        return {outcome: count for outcome, count in latest["decisions"].items() if count}

    for _ in range(200):
        if await counts() == expected:
            return latest
        await asyncio.sleep(0.01)
    assert await counts() == expected
    return latest


async def route(gateway: ReloadableGateway, question: str) -> str:
    return (await gateway.ask(question)).one("x-serac-route")


async def test_without_one_the_report_is_empty(gateway: ReloadableGateway) -> None:
    assert await report(gateway) is None


async def test_it_decides_beside_the_one_in_force_and_is_never_applied(
    gateway: ReloadableGateway, strict: Path
) -> None:
    gateway.configure(on_trial(strict))
    reply = (await gateway.reload()).json
    assert (reply["changed"], reply["opened"]) == (
        ["models.scope_classifier_shadow"],
        ["scope classifier on trial"],
    )
    assert await route(gateway, QUESTION) == "counterfactual"
    assert await route(gateway, NEAR) == "counterfactual", "the one in force decides"
    assert await route(gateway, "How do I boil an egg?") == "base"
    got = await decided(gateway, agree=2, would_not_fire=1)
    (kept,) = got["disagreements"]
    assert (kept["outcome"], kept["shadow_edit_id"], kept["query"]) == ("would_not_fire", None, None)
    assert kept["edit_id"] is not None
    assert kept["shadow_scope_probability"] < got["scope_threshold"] == 0.99
    text = (await fetch(gateway.url, "/metrics", method="GET")).body.decode()
    assert 'serac_shadow_decisions_total{outcome="would_not_fire"} 1.0' in text


async def test_explain_has_its_verdict_beside_the_decision(gateway: ReloadableGateway, strict: Path) -> None:
    body = json.dumps({"queries": [NEAR, "How do I boil an egg?"]}).encode()
    assert (await fetch(gateway.url, "/serac/v1/scope", body)).json["decisions"][0]["shadow"] is None
    gateway.configure(on_trial(strict))
    await gateway.reload()
    near, far = (await fetch(gateway.url, "/serac/v1/scope", body)).json["decisions"]
    assert near["in_scope"]
    assert (near["shadow"]["in_scope"], near["shadow"]["edit_id"]) == (False, None)
    assert near["shadow"]["scope_threshold"] == 0.99
    assert far["shadow"] is None or not far["shadow"]["in_scope"]


async def test_a_text_is_kept_redacted_where_traffic_is_recorded(
    gateway: ReloadableGateway, strict: Path
) -> None:
    gateway.configure(on_trial(strict, 'traffic.namespaces = ["default"]\n'))
    await gateway.reload()
    await gateway.ask(f"{NEAR} +49 170 1234567")
    (kept,) = (await decided(gateway, would_not_fire=1))["disagreements"]
    assert kept["query"] == f"{NEAR} [redacted]"


async def test_a_reload_puts_it_in_force_and_another_one_goes_back(
    gateway: ReloadableGateway, strict: Path
) -> None:
    gateway.configure(classifier=str(strict))
    assert (await gateway.reload()).json["opened"] == ["scope classifier"]
    assert await route(gateway, NEAR) == "base"
    assert await route(gateway, QUESTION) == "counterfactual"
    gateway.configure()
    assert (await gateway.reload()).json["outcome"] == "reloaded"
    assert await route(gateway, NEAR) == "counterfactual"


async def test_a_folder_that_is_written_later_is_opened_by_the_next_reload(
    gateway: ReloadableGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.configure(on_trial(tmp_path / "later"))
    with caplog.at_level(logging.WARNING):
        assert (await gateway.reload()).json["opened"] == []
    assert "does not exist (yet)" in caplog.text
    assert await report(gateway) is None
    write_calibration(tmp_path / "later", scope_threshold=0.99)
    assert (await gateway.reload()).json["opened"] == ["scope classifier on trial"]
    assert (await report(gateway) or {})["weights"] == str(tmp_path / "later")


async def test_weights_that_cannot_be_used_are_refused_by_their_key(
    gateway: ReloadableGateway, tmp_path: Path
) -> None:
    write_calibration(tmp_path / "broken", text="{}")
    gateway.configure(on_trial(tmp_path / "broken"))
    reply = await gateway.reload()
    assert reply.status == 409
    assert "models.scope_classifier_shadow: the calibration" in reply.json["detail"]


async def test_what_comes_faster_than_it_decides_is_dropped_and_counted(
    gateway: ReloadableGateway, strict: Path
) -> None:
    gateway.configure(on_trial(strict))
    await gateway.reload()
    context = gateway.runtimes.current.control_plane
    assert context.shadow is not None
    opened, release = context.shadow._opened, threading.Event()
    opened.pool.submit(release.wait)  # its one thread is busy
    try:
        count = shadows.MAX_WAITING + 3
        for _ in range(count):
            assert await route(gateway, QUESTION) == "counterfactual", "nobody waits for it"
        await decided(gateway, dropped=3)
    finally:
        release.set()
    await decided(gateway, agree=shadows.MAX_WAITING, dropped=3)
    await eventually(lambda: opened.waiting == 0)
