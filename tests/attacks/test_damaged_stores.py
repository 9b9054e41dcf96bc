"""One namespace's damage is that namespace's alone, is reported, and opens none of its suppressions."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serac_gateway.auth.principals import Role
from serac_gateway.domain.edits import EditDraft, first_version
from serac_gateway.errors import RETRY_AFTER_S, StoreUnavailableError
from serac_gateway.stores.damage import Damage as Damaged
from serac_gateway.stores.log_verification import verify_log
from serac_gateway.stores.records import Action
from serac_gateway.stores.redis.repairer import RedisNamespaceRepairer
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
    foreign_head,
    foreign_id,
    server_of,
    store_of_two,
    torn_current_record,
    write,
    write_torn_version,
)
from tests.http.wire import WireResponse
from tests.made_keys import stored_key

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


@pytest.mark.parametrize("damage", (LOST | MADE_ANEW).values(), ids=(LOST | MADE_ANEW).keys())
async def test_repair_shows_the_damage_keeps_its_bytes_and_opens_the_namespace(
    damage: Damage, tmp_path: Path
) -> None:
    async with store_of_two(tmp_path) as store:
        with server_of(tmp_path) as client:
            damage(client)
            before = client.hgetall(KEYS.vectors), client.lrange(KEYS.versions("hidden"), 0, -1)
            async with attacked_gateway(tmp_path, f'data_dir = "{tmp_path}"', store=store) as gateway:
                dry = await repair(gateway, "")
                assert dry["damages"]
                assert (dry["applied"], dry["remaining"]) == (False, len(dry["damages"]))
                unchanged = client.hgetall(KEYS.vectors), client.lrange(KEYS.versions("hidden"), 0, -1)
                assert unchanged == before
                done = await repair(gateway, "?apply=true")
                assert done["remaining"] == 0, done
                kept = Path(done["saved_to"])
                assert kept.is_relative_to(tmp_path / "damaged")
                assert kept.stat().st_mode & 0o077 == 0
                assert len(kept.read_text().splitlines()) >= len(dry["damages"])
                assert (await repair(gateway, ""))["damages"] == []
                assert (await gateway.call("GET", "/serac/v1/store:check", namespace="acme")).json()["sound"]
                assert "acme" not in gateway.gateway.process.active_edits.quarantine
                if dry["damages"][0]["remedy"] != "purge":
                    assert_suppressed(await ask(gateway, IN_ACME))


async def test_of_a_lost_newest_version_the_older_one_is_in_force_again_under_another_id(
    tmp_path: Path,
) -> None:
    async with store_of_two(tmp_path) as store:
        with server_of(tmp_path) as client:
            write_torn_version(client, await store.log_head("acme"))
        async with attacked_gateway(tmp_path, f'data_dir = "{tmp_path}"', store=store) as gateway:
            assert_quarantined(await ask(gateway, IN_ACME))
            (done,) = (await repair(gateway, "?apply=true"))["damages"]
            assert (done["edit_id"], done["remedy"], done["version"]) == ("hidden", "replace", 1)
            assert_suppressed(await ask(gateway, IN_ACME))
            anew = await gateway.call("GET", f"/serac/v1/edits/{done['new_id']}", namespace="acme")
            assert anew.json()["prompt"] == SUPPRESSED_QUESTION
            gone = await gateway.call("GET", "/serac/v1/edits/hidden", namespace="acme")
            assert gone.status_code == 410
            assert (await verify_log(store, "acme")).length == 5


@pytest.mark.parametrize("steps", range(4))
async def test_a_repair_that_is_killed_is_ended_by_the_next_one_and_no_byte_is_lost(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store goes after some of the remedies; three records are damaged."""
    left = steps
    mend = RedisNamespaceRepairer.mend

    async def interrupted(repairer: RedisNamespaceRepairer, damage: Damaged) -> bool:
        nonlocal left
        if left == 0:
            raise StoreUnavailableError("the server was killed")
        left -= 1
        return await mend(repairer, damage)

    async with store_of_two(tmp_path) as store:
        with server_of(tmp_path) as client:
            for damage in (torn_current_record, foreign_head, foreign_id):
                damage(client)
            async with attacked_gateway(tmp_path, f'data_dir = "{tmp_path}"', store=store) as gateway:
                monkeypatch.setattr(RedisNamespaceRepairer, "mend", interrupted)
                first = await gateway.call("POST", "/serac/v1/store:repair?apply=true", namespace="acme")
                assert first.status_code == (200 if steps == 3 else 503)
                monkeypatch.setattr(RedisNamespaceRepairer, "mend", mend)
                assert (await repair(gateway, "?apply=true"))["remaining"] == 0
                assert (await repair(gateway, ""))["damages"] == []
                assert_suppressed(await ask(gateway, IN_ACME))
    lines = [line for file in (tmp_path / "damaged").iterdir() for line in file.read_text().splitlines()]
    kept = [base64.b64decode(data) for line in lines for data in json.loads(line)["stored"].values()]
    assert {b'{"id":', b"zz", b"../..{x}\xff"} <= set(kept)


async def test_a_check_names_a_damaged_head_instead_of_failing(tmp_path: Path) -> None:
    async with store_of_two(tmp_path) as store:
        with server_of(tmp_path) as client:
            foreign_head(client)
        async with attacked_gateway(tmp_path, store=store) as gateway:
            report = (await gateway.call("GET", "/serac/v1/store:check", namespace="acme")).json()
            assert not report["sound"]
            assert "head of the log" in report["problems"][0]


async def test_only_an_admin_of_the_namespace_repairs_it(tmp_path: Path) -> None:
    async with attacked_gateway(tmp_path, "access.required = true") as gateway:
        for role, namespace in ((Role.EDIT, "acme"), (Role.ADMIN, "bolt")):
            key = await gateway.key(role, namespace)
            reply = await gateway.call("POST", "/serac/v1/store:repair", key=key, namespace="acme")
            assert reply.status_code == 403


async def repair(gateway: AttackedGateway, query: str) -> dict[str, Any]:
    reply = await gateway.call("POST", f"/serac/v1/store:repair{query}", namespace="acme")
    assert reply.status_code == 200, reply.text
    report: dict[str, Any] = reply.json()
    return report


async def test_damaged_api_keys_are_refused_and_keep_no_gateway_from_starting(tmp_path: Path) -> None:
    async with store_of_two(tmp_path) as store:
        keys = store.api_keys()
        sound, torn_key, moved, revoked = [
            await stored_key(keys, role=Role.ADMIN, namespaces=("*",)) for _ in range(4)
        ]
        ids = [key.split("-")[2] for key in (sound, torn_key, moved, revoked)]
        with server_of(tmp_path) as client:
            client.hset("serac:{@keys}:records", ids[1], b"{")
            client.hset("serac:{@keys}:records", ids[2], client.hget("serac:{@keys}:records", ids[0]))
            client.hset("serac:{@keys}:revoked", ids[3], b"\xffsome day")
        async with attacked_gateway(tmp_path, "access.required = true", store=store) as gateway:
            await gateway.gateway.process.authenticator.require_usable_key()
            statuses = [
                (await gateway.call("GET", "/serac/v1/keys", key=key)).status_code
                for key in (sound, torn_key, moved, revoked)
            ]
            assert statuses == [200, 401, 401, 401]
