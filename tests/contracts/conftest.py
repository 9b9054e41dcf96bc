"""The edit stores that the contract runs over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from serac_gateway.stores.base import EditStore
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.redis.store import RedisStore
from tests.contracts.least_privilege import acl_rules
from tests.contracts.served_clusters import ClusterServers
from tests.contracts.served_stores import RedisServer, ServedStore, serve


@pytest.fixture(params=["embedded_valkey", "redis_server"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ServedStore]:
    """A store in a server that can be upset."""
    async with serve(request.param, tmp_path) as served_store:
        yield served_store


@pytest.fixture
def admin(served: ServedStore) -> Iterator[redis.Redis]:
    """A client of the server, as its operator has one."""
    with redis.Redis.from_url(served.url) as client:
        yield client


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterServers]:
    """Three redis-servers in cluster mode."""
    servers = ClusterServers(tmp_path_factory.mktemp("cluster"))
    try:
        servers.start()
        yield servers
    finally:
        servers.kill()


@pytest.fixture(scope="session")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server with the ACL user of docs/operations.md, whose password is "let me in"."""
    server = RedisServer(tmp_path_factory.mktemp("guarded"))
    try:
        server.start()
        with redis.Redis(port=server.port) as client:
            client.execute_command("ACL SETUSER", "serac", *acl_rules(), ">let me in")
        yield server
    finally:
        server.kill()


@pytest.fixture(params=["in_memory", "embedded_valkey", "redis_server", "redis_cluster", "least_privilege"])
async def edit_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EditStore]:
    """Each store in turn, empty. Receipts behind idempotency keys are kept for one second."""
    if request.param == "in_memory":
        yield InMemoryEditStore(idempotency_ttl_s=1)
    elif request.param == "redis_cluster":
        servers: ClusterServers = request.getfixturevalue("cluster")
        servers.flush()
        store = await RedisStore.open(servers.url, idempotency_ttl_s=1)
        yield store
        await store.close()
    elif request.param == "least_privilege":
        server: RedisServer = request.getfixturevalue("guarded_server")
        with redis.Redis(port=server.port) as client:
            client.flushall()
        url = f"redis://serac:let%20me%20in@127.0.0.1:{server.port}/0"
        store = await RedisStore.open(url, idempotency_ttl_s=1)
        yield store
        await store.close()
    else:
        async with serve(request.param, tmp_path) as served_store:
            yield served_store.store
