"""Error texts when the edit store cannot be opened, and for Redis' errors."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
import redis
from redis import exceptions as redis_exceptions

from serac_gateway.errors import ConfigError, StoreUnavailableError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.open import open_store
from serac_gateway.stores.redis.connection import without_password
from serac_gateway.stores.redis.embedded_valkey import EmbeddedValkey
from serac_gateway.stores.redis.errors import FOREIGN_ERRORS, unavailable


async def refusal_of(url: str | None, folder: Path) -> str:
    with pytest.raises(ConfigError) as failure:
        await open_store(url, folder)
    assert "\n" not in failure.value.message
    assert "secret" not in failure.value.message
    return failure.value.message


async def test_without_a_url_the_store_lives_in_the_data_folder(tmp_path: Path) -> None:
    store: EditStore = await open_store(None, tmp_path)
    await store.ping()
    assert (tmp_path / "valkey" / "appendonlydir").is_dir()
    await store.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_an_unreachable_server_is_named_without_its_password(tmp_path: Path, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert await refusal_of(f"redis://ann:secret@{host}:{port}/0?ssl=secret", tmp_path) == (
        f"the edit store's URL 'redis://ann:***@{host}:{port}/0' cannot be used:"
        " AbstractConnection.__init__() got an unexpected keyword argument 'ssl'; write redis://host:port/0,"
        " rediss://user:password@host:port/0, unix:///path/to/socket,"
        " redis+sentinel://host:port,host:port/service/0 or redis+cluster://host:port,host:port, the password"
        " percent-encoded"
    )
    assert await refusal_of(f"redis://ann:secret@{host}:{port}/0", tmp_path) == (
        f"cannot reach the edit store at 'redis://ann:***@{host}:{port}/0': connection refused; start it or"
        " leave out --redis to use the embedded one"
    )


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:1/0", "localhost:6379", "redis://host:port/0", "redis://:secret/x@h:1", ""),
        *("redis+sentinel://:secret@h:1", "redis+sentinel://h:1/service/x", "redis+sentinel:///service"),
        *("redis+cluster://h:1/3", "redis+cluster://:secret@h:1/0?no_such_option=1", "redis+other://h:1"),
    ],
)
async def test_a_url_that_is_none_is_refused_with_examples(tmp_path: Path, url: str) -> None:
    assert "write redis://host:port/0" in await refusal_of(url, tmp_path)


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("redis://:secret@h:1/0", "redis://:***@h:1/0"),
        ("redis://ann:secret@h:1/0?password=secret", "redis://ann:***@h:1/0"),
        ("rediss://ann@h/1", "rediss://ann@h/1"),
        ("redis://:se#c/r?et@h:1/0", "redis://:***@h:1/0"),
        ("redis://ann:sec@secret@h", "redis://ann:***@h"),
        (
            "redis+sentinel://a:secret@h:1,i:2/edits/0?sentinel_password=secret",
            "redis+sentinel://a:***@h:1,i:2/edits/0",
        ),
        ("rediss+cluster://:secret@h:1,i:2", "rediss+cluster://:***@h:1,i:2"),
        ("unix:///run/redis.sock?password=secret", "unix:///run/redis.sock"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, redacted: str) -> None:
    assert without_password(url) == redacted


async def test_a_wrong_password_is_reported_in_the_servers_words(tmp_path: Path) -> None:
    server = await EmbeddedValkey.start(tmp_path)
    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", "right")
    url = f"unix://:secret@{server.url.removeprefix('unix://')}"
    assert (
        "WRONGPASS" in (message := await refusal_of(url, tmp_path)) or "invalid username-password" in message
    )
    await server.stop()


async def test_a_newer_layout_is_refused_naming_both_versions(tmp_path: Path) -> None:
    server = await EmbeddedValkey.start(tmp_path)
    store = await open_store(server.url, tmp_path)
    await store.close()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("serac:schema") == b"2"
        client.set("serac:schema", 3)
    assert "schema version 3, and this gateway knows up to 2" in await refusal_of(server.url, tmp_path)
    await server.stop()


async def test_a_server_that_may_lose_edits_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = await EmbeddedValkey.start(tmp_path)
    await (await open_store(server.url, tmp_path)).close()
    assert caplog.text == ""
    with redis.Redis.from_url(server.url) as client:
        client.config_set("appendfsync", "everysec")
        client.config_set("maxmemory-policy", "allkeys-lru")
    await (await open_store(server.url, tmp_path)).close()
    assert "may lose acknowledged edits: appendfsync is 'everysec' and should be 'always'," in caplog.text
    assert "maxmemory-policy is 'allkeys-lru' and should be 'noeviction'" in caplog.text
    await server.stop()


async def test_an_old_server_is_refused_with_the_versions_that_do(tmp_path: Path) -> None:
    async def redis_6(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(10_000):
            for command in request.split(b"*")[1:]:
                hello = b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n6.2.1\r\n"
                writer.write(hello if b"HELLO" in command else b"+OK\r\n")
        writer.close()

    async with await asyncio.start_server(redis_6, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        message = await refusal_of(f"redis://127.0.0.1:{port}/0", tmp_path)
    assert "is version '6.2.1'; it must be Redis 7.0, Valkey 7.2 or later" in message


@pytest.mark.parametrize(
    "error_class",
    [
        thing
        for thing in vars(redis_exceptions).values()
        if isinstance(thing, type) and issubclass(thing, Exception)
    ],
)
def test_every_error_of_redis_py_is_translated(error_class: type[Exception]) -> None:
    assert issubclass(error_class, FOREIGN_ERRORS), f"add {error_class} to FOREIGN_ERRORS"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (redis_exceptions.AuthenticationError("WRONGPASS invalid"), "check the user and the password"),
        (redis_exceptions.NoPermissionError("NOPERM this user"), "serac:*"),
        (redis_exceptions.BusyLoadingError("LOADING"), "still reading its data"),
        (redis_exceptions.TimeoutError("Timeout reading"), "idempotency key"),
        (TimeoutError(), "idempotency key"),
        (redis_exceptions.OutOfMemoryError("OOM"), "maxmemory"),
        (redis_exceptions.ReadOnlyError("READONLY"), "name its primary"),
        (redis_exceptions.MovedError("12182 127.0.0.1:7002"), "name a node that does"),
        (redis_exceptions.ConnectionError("closed"), "start it, or check its URL"),
        (ConnectionRefusedError(111, "Connect call failed"), "connection refused; start it"),
        (
            redis_exceptions.ResponseError("MISCONF Redis is configured"),
            "MISCONF Redis is configured; see its log",
        ),
    ],
)
def test_a_failure_comes_with_its_remedy(error: Exception, remedy: str) -> None:
    failure = unavailable("'redis://h'", error)
    assert isinstance(failure, StoreUnavailableError)
    assert remedy in failure.message
    assert failure.message.startswith("the edit store at 'redis://h' failed: ")
