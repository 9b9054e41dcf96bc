"""A store whose URL names several hosts is found through any of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serac_gateway.errors import ConfigError
from serac_gateway.stores.open import open_store
from serac_gateway.stores.records import Action
from tests.contracts.edit_store_calls import NS, new
from tests.contracts.following_replicas import following, put, within
from tests.contracts.served_clusters import ClusterServers


async def test_a_cluster_is_found_through_any_of_its_nodes(cluster: ClusterServers, tmp_path: Path) -> None:
    cluster.flush()
    dead = "127.0.0.1:1"
    for server in cluster.servers:
        store = await open_store(f"redis+cluster://{dead},127.0.0.1:{server.port}", tmp_path)
        await put(store, Action.ADD, new(f"e{server.port}"))
        await store.close()
    store = await open_store(cluster.url, tmp_path)
    assert len((await store.page(NS)).edits) == 3
    await store.close()


async def test_namespaces_on_all_nodes_of_a_cluster_are_followed(
    cluster: ClusterServers, tmp_path: Path
) -> None:
    cluster.flush()
    store = await open_store(cluster.url, tmp_path)
    names = [f"tenant-{number}" for number in range(20)]
    async with following(store) as replica:
        await asyncio.gather(*(put(store, Action.ADD, new("a", namespace=name)) for name in names))
        await within(2, lambda: all(replica.target("a", name) == "Ann" for name in names))
        assert await store.namespaces() == sorted(names)
    await store.close()


async def test_more_calls_to_a_cluster_than_connections_wait_their_turn(
    cluster: ClusterServers, tmp_path: Path
) -> None:
    cluster.flush()
    store = await open_store(cluster.url, tmp_path)
    await asyncio.gather(
        *(put(store, Action.ADD, new(f"e{n}", namespace=f"tenant-{n % 7}")) for n in range(300))
    )
    counts = [len((await store.page(f"tenant-{n}", limit=100)).edits) for n in range(7)]
    assert sum(counts) == 300
    await store.close()


@pytest.mark.parametrize(
    "url", ["redis+cluster://127.0.0.1:1,127.0.0.1:2", "redis+sentinel://127.0.0.1:1,127.0.0.1:2/edits/0"]
)
async def test_where_no_host_answers_the_gateway_does_not_start(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot reach the edit store") as failure:
        await open_store(url, tmp_path)
    assert "\n" not in failure.value.message
