"""What was purged lies in no file any more: after many purges, after kills, in what crashes leave."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from serac_gateway.cli.main import app
from serac_gateway.domain.edits import Attribution, purged
from serac_gateway.stores.disk_search import search_folder
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import Action
from serac_gateway.stores.redis.purge_eraser import PurgeEraser
from serac_gateway.stores.redis.store import RedisStore
from tests.attacks.attacked_gateway import attacked_gateway
from tests.contracts.edit_store_calls import NS, add, commit_of, new

PURGED = Attribution(reason="request 4711")


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[RedisStore]:
    store = await RedisStore.open_embedded(folder / "valkey")
    try:
        yield store
    finally:
        await store.close()


def secret(number: int) -> str:
    return f"Beeblebrox-{number}-of-Betelgeuse-" + "x" * 40


async def purge(store: RedisStore, edit_id: str) -> None:
    current = await store.get(NS, edit_id)
    await store.commit(NS, commit_of(Action.PURGE, purged(current, PURGED)))


def places(folder: Path, text: str) -> list[str]:
    return [hit.path for hit in search_folder(folder, text).hits]


async def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.05)


async def test_each_of_many_purges_is_off_the_disk_when_it_is_acknowledged(tmp_path: Path) -> None:
    async with embedded(tmp_path) as store:
        for number in range(12):
            await add(store, new(f"e{number}", target_new=secret(number)))
            assert places(tmp_path, secret(number)), "the search sees what is stored"
        for number in range(6):
            await purge(store, f"e{number}")
            assert places(tmp_path, secret(number)) == []
        await asyncio.gather(*(purge(store, f"e{number}") for number in range(6, 12)))
        assert not store.has_pending_purge
        assert [number for number in range(12) if places(tmp_path, secret(number))] == []
    assert [number for number in range(12) if places(tmp_path, secret(number))] == []


async def test_a_purge_during_another_rewrite_waits_for_one_that_began_after_it(tmp_path: Path) -> None:
    async with embedded(tmp_path) as store:
        await add(store, new("a", target_new=secret(0)))
        with redis.Redis(unix_socket_path=str(tmp_path / "valkey" / "valkey.sock")) as client:
            client.bgrewriteaof()
            await purge(store, "a")
        assert places(tmp_path, secret(0)) == []


@pytest.mark.parametrize("killed", ["the server", "all"])
async def test_a_purge_that_was_committed_and_not_rewritten_is_off_the_disk_after_the_next_start(
    killed: str, tmp_path: Path
) -> None:
    async with embedded(tmp_path) as store:
        await add(store, new("a", target_new=secret(0)))
        await store._server.eraser.announce()
        without_server = await RedisStore.open(store._server.url)  # it rewrites nothing
        await purge(without_server, "a")
        await without_server.close()
        assert places(tmp_path, secret(0))
        os.kill(store._server.pid, signal.SIGKILL)
        if killed == "the server":
            await until(lambda: store._server.problem is not None)
            await store._server.eraser.erase()
            await until(lambda: not places(tmp_path, secret(0)))
    async with embedded(tmp_path):
        await until(lambda: not places(tmp_path, secret(0)))
        await until(lambda: not (tmp_path / "valkey" / "purge.pending").exists())


async def test_what_crashed_rewrites_left_is_removed_at_the_start(tmp_path: Path) -> None:
    async with embedded(tmp_path) as store:
        await add(store, new("kept", target_new="Ann"))
    folder = tmp_path / "valkey"
    left = [
        folder / "temp-rewriteaof-4711.aof",
        folder / "temp-4711.rdb",
        folder / "appendonlydir" / "temp-rewriteaof-bg-4711.aof",
        folder / "appendonlydir" / "appendonly.aof.99.incr.aof",
    ]
    for path in left:
        path.write_text(secret(0))
    own = folder / "notes.txt"
    own.write_text("mine")
    async with embedded(tmp_path) as store:
        assert [path for path in left if path.exists()] == []
        assert own.exists()
        assert (await store.get(NS, "kept")).target_new == "Ann"


async def test_a_rewrite_that_fails_is_tried_until_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed one, one whose server ended meanwhile, one that is refused: none of them counts."""
    monkeypatch.setattr("serac_gateway.stores.redis.purge_eraser._FIRST_PAUSE_S", 0.01)
    outcomes = iter(["err", "restarted", "refused", "ok"])
    state = {"run": 0, "status": "ok"}
    rewrites: list[str] = []

    async def send(*command: str) -> object:
        if command[0] == "BGREWRITEAOF":
            rewrites.append(outcome := next(outcomes))
            state["status"] = "err" if outcome == "err" else "ok"
            state["run"] += outcome == "restarted"
            if outcome == "refused":
                raise redis.ResponseError("Background append only file rewriting already in progress")
        facts = {"run_id": state["run"], "aof_last_bgrewrite_status": state["status"]}
        return {**facts, "aof_rewrite_in_progress": 0, "aof_rewrite_scheduled": 0}

    eraser = PurgeEraser(tmp_path, send)
    eraser.start()
    try:
        await eraser.announce()
        assert (tmp_path / "purge.pending").exists()
        assert await eraser.erase()
    finally:
        await eraser.stop()
    assert rewrites == ["err", "restarted", "refused", "ok"]
    assert not eraser.is_pending
    assert not (tmp_path / "purge.pending").exists()
    assert caplog.text.count("still lies on the disk") == 1


class SlowlyErasedStore(InMemoryEditStore):
    """Its file is written anew later."""

    has_pending_purge = True


async def test_the_reply_to_a_purge_says_if_the_text_still_lies_on_the_disk(tmp_path: Path) -> None:
    for store, header in ((SlowlyErasedStore(), "true"), (InMemoryEditStore(), None)):
        async with attacked_gateway(tmp_path, store=store) as gateway:
            await gateway.add({"id": "a", "prompt": "Who?", "target_new": "Jo"})
            reply = await gateway.call(
                "POST", "/serac/v1/edits/a:purge", json={"reason": "x"}, headers={"if-match": "*"}
            )
            assert (reply.status_code, reply.headers.get("x-serac-purge-pending")) == (200, header)
            metrics = (await gateway.call("GET", "/metrics")).text
            assert f"serac_purge_pending {'1.0' if header else '0.0'}" in metrics


def test_the_check_sees_a_text_in_every_spelling_and_takes_it_from_stdin(tmp_path: Path) -> None:
    text = 'Zoë said "no"\n'
    (tmp_path / "plain").write_text(f"x{text}y")
    (tmp_path / "json").write_text('{"a":"Zo\\u00eb said \\"no\\"\\n"}')
    (tmp_path / "deep").mkdir()
    for skipped in range(3):
        encoded = base64.b64encode(bytes(skipped) + text.encode() + b"tail")
        (tmp_path / "deep" / f"base64-{skipped}").write_bytes(encoded)
    (tmp_path / "other").write_text("Zoe said no")
    (tmp_path / "link").symlink_to(tmp_path / "plain")
    assert {Path(place).name for place in places(tmp_path, text)} == {
        "plain", "json", "base64-0", "base64-1", "base64-2",
    }  # fmt: skip
    arguments = ["store", "check", "--purged", "--data-dir", str(tmp_path)]
    runner = CliRunner()
    seen = runner.invoke(app, arguments, input='Zoë said "no"\n')
    assert (seen.exit_code, "plain: at byte 1" in seen.output.replace("\n", "")) == (1, True)
    assert runner.invoke(app, arguments, input="Trillian\n").exit_code == 0
    assert runner.invoke(app, arguments, input="no\n").exit_code == 2
