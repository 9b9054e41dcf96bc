"""A data folder that is shared, damaged, full or none costs what it must, and each ends in one line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serac_gateway.cli.main import app
from serac_gateway.errors import ConfigError, StoreUnavailableError
from serac_gateway.models.folder_digests import is_sound, write_digests
from serac_gateway.server.data_folder import WORKERS_PREFIX, make_data_folder, sweep_worker_folders
from serac_gateway.stores.log_verification import BrokenLogError, verify_log
from serac_gateway.stores.redis import embedded_valkey
from serac_gateway.stores.redis.append_only_file import bad_ranges
from serac_gateway.stores.redis.store import RedisStore
from tests.contracts.edit_store_calls import NS, add, new, next_of, update


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[RedisStore]:
    store = await RedisStore.open_embedded(folder / "valkey")
    try:
        yield store
    finally:
        await store.close()


async def test_a_lock_file_that_is_removed_lets_no_second_gateway_in_nor_does_another_path(
    tmp_path: Path,
) -> None:
    async with embedded(tmp_path):
        (tmp_path / "valkey" / "gateway.lock").unlink()
        with pytest.raises(ConfigError, match="in use by another gateway"):
            await RedisStore.open_embedded(tmp_path / "valkey")
        (tmp_path / "other").symlink_to(tmp_path / "valkey")
        with pytest.raises(ConfigError, match="in use by another gateway"):
            await RedisStore.open_embedded(tmp_path / "other")
    async with embedded(tmp_path):
        pass


def file_of(folder: Path) -> Path:
    (path,) = (folder / "valkey" / "appendonlydir").glob("*.incr.aof")
    return path


async def filled(folder: Path) -> bytes:
    async with embedded(folder) as store:
        edit = new("a")
        await add(store, edit)
        for number in range(5):
            edit = next_of(edit, target_new=f"answer {number}")
            await update(store, edit)
    return file_of(folder).read_bytes()


@pytest.mark.parametrize(
    "tail",
    [bytes(4096), b"\x00\xff garbage *3 $3 " * 40, b"*1\r\n$5\r\nMULTI\r\n" + bytes(64)],
    ids=["NUL bytes", "garbage", "half a commit"],
)
async def test_a_torn_tail_costs_nothing_that_was_acknowledged(
    tail: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = await filled(tmp_path)
    file_of(tmp_path).write_bytes(whole + tail)
    async with embedded(tmp_path) as store:
        assert (await store.get(NS, "a")).target_new == "answer 4"
        assert (await verify_log(store, NS)).length == 6
        await add(store, new("b"))
    assert f"the last {len(tail)} bytes" in caplog.text
    (kept,) = (tmp_path / "damaged").iterdir()
    assert kept.read_bytes() == tail
    assert kept.stat().st_mode & 0o077 == 0


async def test_damage_in_the_middle_is_cut_out_by_the_command_that_the_error_names(tmp_path: Path) -> None:
    whole = await filled(tmp_path)
    place = whole.index(b"answer 2") - 60
    place = whole.index(b"\r\n$", place)
    damaged = whole[:place] + b"#####" + whole[place + 5 :]
    file_of(tmp_path).write_bytes(damaged)
    with pytest.raises(ConfigError, match="`serac store recover`"):
        await RedisStore.open_embedded(tmp_path / "valkey")
    assert file_of(tmp_path).read_bytes() == damaged
    runner, arguments = CliRunner(), ["store", "recover", "--data-dir", str(tmp_path)]
    listed = runner.invoke(app, arguments)
    assert (listed.exit_code, "cannot be read" in listed.output) == (1, True)
    assert file_of(tmp_path).read_bytes() == damaged
    assert runner.invoke(app, [*arguments, "--apply"]).exit_code == 0
    assert bad_ranges(file_of(tmp_path)) == []
    (kept,) = (tmp_path / "damaged").iterdir()
    assert b"#####" in kept.read_bytes()
    async with embedded(tmp_path) as store:
        assert (await store.get(NS, "a")).target_new == "answer 4", "the other commits are there"
        with pytest.raises(BrokenLogError):
            await verify_log(store, NS)
        with_gateway = runner.invoke(app, arguments)
        assert (with_gateway.exit_code, "in use by another gateway" in with_gateway.output) == (2, True)


async def test_a_mute_stranger_on_the_socket_is_an_error_after_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_valkey, "_STOP_TIMEOUT_S", 1.0)
    monkeypatch.setattr(embedded_valkey, "_PROBE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(embedded_valkey, "_SEND_TIMEOUT_S", 0.2)
    folder = tmp_path / "valkey"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mute:
        mute.bind(str(folder / "valkey.sock"))
        mute.listen(0)
        waiting = []
        for _ in range(4):  # until its queue is full
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.setblocking(False)
            waiting.append(client)
            client.connect_ex(str(folder / "valkey.sock"))
        begun_s = time.monotonic()
        with pytest.raises(ConfigError, match="another process"):
            await RedisStore.open_embedded(folder)
        assert time.monotonic() - begun_s < 10
        for client in waiting:
            client.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A volume of 24 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small volume needs the right to mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb") as opened:
        while True:
            opened.write(bytes(65_536))
            opened.flush()


async def add_many(store: RedisStore) -> None:
    for number in range(200):
        await add(store, new(f"b{number}", target_new="x" * 2_000))


async def test_a_full_disk_is_named_and_the_store_goes_on_once_there_is_room(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with embedded(small_disk) as store:
        await add(store, new("a"))
        filler = small_disk / "filler"
        fill(filler)
        with pytest.raises(StoreUnavailableError):
            await add_many(store)
        async with asyncio.timeout(20):
            while "is full" not in (store._server.problem or ""):
                await asyncio.sleep(0.05)
        with pytest.raises(StoreUnavailableError, match=r"disk of .* is full.*make room"):
            await add(store, new("c"))
        await asyncio.sleep(2)
        assert caplog.text.count("is full") == 1, "not a line a try"
        filler.unlink()
        async with asyncio.timeout(30):
            while store._server.problem is not None:
                await asyncio.sleep(0.05)
        await add(store, new("d"))
        assert (await store.get(NS, "a")).target_new == "Ann"
        assert (await store.get(NS, "d")).target_new == "Ann"


def test_a_data_folder_that_cannot_be_is_named_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    for path in (file, file / "sub", Path("/proc/none"), tmp_path / ("x" * 300)):
        with pytest.raises(ConfigError, match=r"cannot be used: .*--data-dir") as refused:
            make_data_folder(path)
        assert "\n" not in refused.value.message
        assert repr(str(path)) in refused.value.message
    make_data_folder(tmp_path / "made" / "here")


def test_temporary_folders_of_killed_gateways_are_removed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old = time.time() - 3_600
    folders = {}
    for name in ("left", "young", "locked", "foreign"):
        folder = folders[name] = tmp_path / f"{WORKERS_PREFIX}{name}"
        folder.mkdir()
        (folder / "namespaces").write_bytes(b"")
        if name == "foreign":
            (folder / "thesis.tex").write_text("mine")
        if name != "young":
            os.utime(folder, (old, old))
    holding = subprocess.Popen(["flock", str(folders["locked"]), "sleep", "60"])
    try:
        time.sleep(0.5)
        assert sweep_worker_folders() == [folders["left"]]
    finally:
        holding.kill()
        holding.wait()
    assert {name for name, folder in folders.items() if folder.exists()} == {"young", "locked", "foreign"}


def test_bit_rot_in_a_converted_model_is_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "model"
    assert not is_sound(folder)
    (folder / "deep").mkdir(parents=True)
    weights = folder / "deep" / "model.bin"
    weights.write_bytes(b"weights " * 1_000)
    assert not is_sound(folder), "made by an earlier release"
    write_digests(folder)
    assert is_sound(folder)
    weights.write_bytes(b"weights " * 999 + b"weightS ")
    os.utime(weights, (1, 1))
    assert not is_sound(folder)
    assert "'deep/model.bin' is damaged" in caplog.text
    weights.write_bytes(b"weights " * 1_000)
    assert is_sound(folder)
    (folder / "more").write_text("foreign")
    assert not is_sound(folder)
