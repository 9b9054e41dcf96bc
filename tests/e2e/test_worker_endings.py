"""How a gateway with workers ends and reloads, also at a bad moment."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream
from tests.e2e.test_workers import CHAT, EVENTS, WORKERS, running, starting
from tests.http.reloadable_gateway import chat_body
from tests.http.wire import connected, eventually, read_head, request_bytes


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


@pytest.mark.parametrize("signal_sent", [signal.SIGTERM, signal.SIGINT])
async def test_what_ends_while_its_workers_start_ends_quietly(
    tmp_path: Path, upstream: ScriptedUpstream, signal_sent: signal.Signals
) -> None:
    async with starting(tmp_path, upstream) as gateway:
        await eventually(lambda: len(gateway.workers) == WORKERS)
        workers = gateway.workers
        os.killpg(gateway.process.pid, signal_sent)  # as a terminal sends it, to all
        assert await gateway.next_line() == "ended"
        assert await asyncio.wait_for(gateway.process.wait(), 20) == 0
        assert not any(worker.is_running() for worker in workers)


async def test_workers_that_a_reload_prepares_end_with_the_gateway(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with running(tmp_path, upstream) as gateway:
        gateway.configure("http://127.0.0.1:9/v1")
        gateway.process.send_signal(signal.SIGHUP)
        await eventually(lambda: len(gateway.workers) == 2 * WORKERS)
        workers = gateway.workers
        gateway.process.terminate()
        assert await asyncio.wait_for(gateway.process.wait(), 20) == 0
        assert not any(worker.is_running() for worker in workers)


async def test_only_a_second_interrupt_breaks_streams_off(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async def hang(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await connection.chunk(b"data: 1\n\n")
        await connection.client_left()

    upstream.script = hang
    async with running(tmp_path, upstream) as gateway, connected(gateway.url) as (reader, writer):
        writer.write(request_bytes(gateway.url, "POST", CHAT, [gateway.admin], chat_body("x", stream=True)))
        await read_head(reader)
        for signal_sent in (signal.SIGINT, signal.SIGTERM):
            os.killpg(gateway.process.pid, signal_sent)
            await eventually(lambda: len(gateway.workers) == 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(gateway.process.wait(), 1)
        os.killpg(gateway.process.pid, signal.SIGINT)
        assert await asyncio.wait_for(gateway.process.wait(), 5) == 0


async def test_files_that_change_alone_reach_the_workers_too(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with running(tmp_path, upstream) as gateway:
        before = {worker.pid for worker in gateway.workers}
        assert (await gateway.control("/serac/v1/config:reload")).json["outcome"] == "unchanged"
        assert {worker.pid for worker in gateway.workers} == before
        for file in (tmp_path / "classifier").iterdir():
            os.utime(file, (1, 1))
        reply = await gateway.control("/serac/v1/config:reload")
        assert (reply.json["outcome"], reply.json["changed"]) == ("reloaded", [])
        await eventually(lambda: len(gateway.workers) == WORKERS, 20)
        assert not before & {worker.pid for worker in gateway.workers}


async def test_a_folder_too_deep_for_a_socket_is_reported(
    tmp_path: Path,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    deep = tmp_path / ("x" * 110)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    async with starting(tmp_path, upstream) as gateway:
        assert await asyncio.wait_for(gateway.process.wait(), 60) == 1
    assert "ConfigError: workers need a Unix socket" in capfd.readouterr().err
    assert not list(deep.glob("serac-*"))


async def test_what_workers_need_is_not_swept_out_of_the_temporary_folder(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TemporaryDirectory() as short:
        monkeypatch.setenv("TMPDIR", short)
        async with running(tmp_path, upstream):
            (folder,) = Path(short).glob("serac-*")
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            opened = os.open(folder, os.O_RDONLY)
            with pytest.raises(BlockingIOError):  # as tmpfiles.d(5) asks before it removes anything
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(opened)
        assert not list(Path(short).glob("serac-*"))
