"""One namespace's damage is that namespace's alone, is reported, and opens none of its suppressions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from serac_gateway.domain.edits import EditDraft, first_version
from serac_gateway.errors import RETRY_AFTER_S
from serac_gateway.stores.records import Action
from tests.attacks.attacked_gateway import (
    REFUSAL,
    SUPPRESSED_QUESTION,
    AttackedGateway,
    attacked_gateway,
    chat,
)
from tests.attacks.damaged_store import (
    KEYS,
    LOST,
    MADE_ANEW,
    Damage,
    server_of,
    store_of_two,
    write,
    write_torn_version,
)
from tests.http.wire import WireResponse

IN_ACME, IN_BOLT = ("x-serac-namespace", "acme"), ("x-serac-namespace", "bolt")


async def ask(gateway: AttackedGateway, *headers: tuple[str, str]) -> WireResponse:
    return await gateway.post(chat(SUPPRESSED_QUESTION), *headers)


def assert_suppressed(reply: WireResponse) -> None:
    assert (reply.status, reply.all("x-serac-route")) == (200, ["counterfactual"])
    assert reply.json["choices"][0]["message"]["content"] == REFUSAL


def assert_quarantined(reply: WireResponse) -> None:
    assert reply.status == 503
    assert reply.json["error"]["code"] == "namespace_quarantined"
    assert "serac store repair" in reply.json["error"]["message"]
    assert reply.all("retry-after") == [str(RETRY_AFTER_S)]


async def metric(gateway: AttackedGateway, name: str) -> float:
    text = (await gateway.call("GET", "/metrics")).text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(name + " ")))


async def within(seconds: float, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("damage", LOST.values(), ids=LOST.keys())
async def test_a_gateway_starts_beside_what_cannot_be_read_and_keeps_that_namespace_closed(
    damage: Damage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with store_of_two(tmp_path) as store:
        with server_of(tmp_path) as client:
            damage(client)
        async with attacked_gateway(tmp_path, store=store) as gateway:
            assert_quarantined(await ask(gateway, IN_ACME))
            unread = await gateway.post(b"{not JSON", IN_ACME)
            assert_quarantined(unread)
            assert gateway.upstream.requests == []
            assert_suppressed(await ask(gateway, IN_BOLT))
            ready = await gateway.call("GET", "/health/ready")
            assert (ready.status_code, ready.json()["quarantined_namespaces"]) == (200, 1)
            assert "acme" not in ready.text, "who needs no key learns no names"
            assert await metric(gateway, "serac_quarantined_namespaces") == 1
            assert "namespace acme is quarantined" in caplog.text


@pytest.mark.parametrize("damage", MADE_ANEW.values(), ids=MADE_ANEW.keys())
async def test_what_can_be_read_elsewhere_or_made_anew_stays_in_force(damage: Damage, tmp_path: Path) -> None:
    async with store_of_two(tmp_path) as store:
        with server_of(tmp_path) as client:
            damage(client)
        async with attacked_gateway(tmp_path, store=store) as gateway:
            assert_suppressed(await ask(gateway, IN_ACME))
            assert_suppressed(await ask(gateway, IN_BOLT))
            assert await metric(gateway, "serac_quarantined_namespaces") == 0


async def test_damage_that_arrives_with_the_log_closes_the_namespace_and_its_repair_opens_it(
    tmp_path: Path,
) -> None:
    """Another gateway's write, damaged before this one reads it, stops no other namespace's changes."""
    async with store_of_two(tmp_path) as store, attacked_gateway(tmp_path, store=store) as gateway:
        process = gateway.gateway.process
        assert_suppressed(await ask(gateway, IN_ACME))
        with server_of(tmp_path) as client:
            sound = client.lindex(KEYS.versions("hidden"), 0)
            write_torn_version(client, await store.log_head("acme"))
            await within(10, lambda: "acme" in process.active_edits.quarantine)
            assert_quarantined(await ask(gateway, IN_ACME))
            new = first_version(EditDraft(id="new", prompt="Who?", target_new="Jo"), namespace="bolt")
            await write(store, process.encoder, Action.ADD, new)
            await within(5, lambda: process.active_edits.has_seen("bolt", "new", 1))
            mended = sound.replace(b'"version":1', b'"version":2')
            client.lset(KEYS.versions("hidden"), 1, mended)
            client.hset(KEYS.current, "hidden", mended[32:])
        await within(20, lambda: "acme" not in process.active_edits.quarantine)
        assert_suppressed(await ask(gateway, IN_ACME))
