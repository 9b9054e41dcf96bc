"""Makes the client of redis-py that fits a URL.

    redis://user:password@host:6379/0                            one server; rediss:// with TLS
    unix:///path/to/socket                                       one server on this machine
    redis+sentinel://user:password@host:26379,host:26379/name/0  the primary that Sentinels name
    redis+cluster://user:password@host:6379,host:6379            a cluster, found through any of its nodes

redis-py has no URLs for the last two; these are Celery's and Kombu's habit. With rediss+… both the servers
and the Sentinels are spoken to with TLS. `?sentinel_username=&sentinel_password=` are the Sentinels' own.
No client sends anything twice by itself: the reply to a commit may be lost after it was made.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from serac_gateway.errors import ConfigError

MAX_CONNECTIONS = 32
TIMEOUT_S = 5.0
"""For a connection, for a free one, and for an answer."""

_SEVERAL_HOSTS = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>sentinel|cluster)://(?:(?P<user>.*)@)?(?P<hosts>[^/?@]+)"
    r"(?:/(?P<path>[^?]*))?(?:\?(?P<query>.*))?"
)
_DEFAULT_PORTS = {"sentinel": 26379, "cluster": 6379}

Client = Redis | RedisCluster


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Certificates and keys for TLS, in PEM files."""

    ca_file: str | None = None
    """Certificates of the authorities that may sign the server's; None: the system's."""
    cert_file: str | None = None
    """This client's own certificate, where the server demands one."""
    key_file: str | None = None

    def options(self) -> dict[str, str]:
        """As redis-py takes them."""
        given = {
            "ssl_ca_certs": self.ca_file,
            "ssl_certfile": self.cert_file,
            "ssl_keyfile": self.key_file,
        }
        return {name: value for name, value in given.items() if value is not None}


NO_TLS_FILES = TlsFiles()


def client_maker(url: str, tls: TlsFiles) -> Callable[[], Client]:
    """Makes clients that neither retry nor decode. A client connects when it is used.

    Raises:
        ValueError, TypeError: redis-py cannot use the URL; a ValueError may quote a password.
        ConfigError: TLS files do not exist, or the URL uses none.
    """
    _check_files(url, tls)
    several = _SEVERAL_HOSTS.fullmatch(url)
    make: Callable[[], Client]
    if several is None:
        make = _for_single_server(url, tls)
    elif several["kind"] == "sentinel":
        make = _for_sentinel(several, tls)
    else:
        make = _for_cluster(several, tls)
    make()  # refuses what it does not know in the URL
    return make


def _for_single_server(url: str, tls: TlsFiles) -> Callable[[], Redis]:
    def make() -> Redis:
        pool = BlockingConnectionPool.from_url(url, **_pool_options(), **tls.options())
        pool.make_connection()
        return Redis.from_pool(pool)

    return make


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Asks the Sentinels for the primary before it connects, and waits for a free connection."""


class _SentinelClient(Redis):
    """Closes its connections to the Sentinels, too."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Disconnect from all."""
        await super().aclose(close_connection_pool)
        pool = self.connection_pool
        if isinstance(pool, _SentinelPool):
            await pool.sentinel_manager.aclose()


def _for_sentinel(url: re.Match[str], tls: TlsFiles) -> Callable[[], Redis]:
    service, _, db = (url["path"] or "").partition("/")
    if not service or (db and not db.isdigit()):
        raise ValueError("a Sentinel's URL ends with /service or /service/0")
    own, options = _options_in(url, tls, db=db)
    hosts = _hosts(url)
    timeouts = {name: value for name, value in options.items() if name.startswith("socket_")}
    sentinel_options = {**_socket_options(), **timeouts, **own}
    if url["scheme"] == "rediss":
        sentinel_options |= {"ssl": True, **tls.options()}
        options["ssl"] = True

    def make() -> Redis:
        sentinel = Sentinel(hosts, sentinel_kwargs=sentinel_options)
        client: Redis = sentinel.master_for(
            service,
            redis_class=_SentinelClient,
            connection_pool_class=_SentinelPool,
            **{**_pool_options(), **options},
        )
        return client

    return make


def _for_cluster(url: re.Match[str], tls: TlsFiles) -> Callable[[], RedisCluster]:
    if url["path"] not in (None, "", "0"):
        raise ValueError("a cluster has database 0 only")
    _, options = _options_in(url, tls)
    options = {
        **_socket_options(),
        "max_connections": MAX_CONNECTIONS,
        "client_name": "serac_gateway",
        **options,
    }
    if url["scheme"] == "rediss":
        options["ssl"] = True
    hosts = _hosts(url)

    def make() -> RedisCluster:
        return RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in hosts], **options)

    return make


def _hosts(url: re.Match[str]) -> list[tuple[str, int]]:
    hosts = []
    for address in url["hosts"].split(","):
        host, _, port = address.rpartition(":") if re.search(r":\d+$", address) else (address, "", "")
        hosts.append((host.strip("[]"), int(port or _DEFAULT_PORTS[url["kind"]])))
    return hosts


def _options_in(url: re.Match[str], tls: TlsFiles, db: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """The Sentinels' options and the servers', as redis-py reads them from a URL of one server."""
    query = {name: values[0] for name, values in parse_qs(url["query"] or "").items()}
    sentinels = {
        name.removeprefix("sentinel_"): query.pop(name)
        for name in ("sentinel_username", "sentinel_password")
        if name in query
    }
    user = f"{url['user']}@" if url["user"] else ""
    options: dict[str, Any] = dict(parse_url(f"redis://{user}host/{db}?{urlencode(query)}"))
    options.pop("host")
    return sentinels, options | tls.options()


def _pool_options() -> dict[str, Any]:
    return {
        **_socket_options(),
        "max_connections": MAX_CONNECTIONS,
        "timeout": TIMEOUT_S,
        "client_name": "serac_gateway",
    }


def _socket_options() -> dict[str, Any]:
    return {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),  # by default it sends ten times, commits too
        "protocol": 2,
    }


def _check_files(url: str, tls: TlsFiles) -> None:
    for name in TlsFiles.__struct_fields__:
        file = getattr(tls, name)
        if file is not None and not url.startswith("rediss"):
            raise ConfigError(
                f"store.{name} = {file!r} is for TLS, which the store's URL does not use; write it as rediss://"
            )
        if file is not None and not Path(file).is_file():
            raise ConfigError(f"store.{name} = {file!r} is no file; name one in PEM format")
    if tls.key_file is not None and tls.cert_file is None:
        raise ConfigError(f"store.key_file = {tls.key_file!r} needs store.cert_file")
