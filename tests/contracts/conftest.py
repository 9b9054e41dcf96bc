"""The edit stores that the contract runs over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from serac_gateway.stores.base import EditStore
from serac_gateway.stores.memory import InMemoryEditStore
from tests.contracts.served_stores import ServedStore, serve


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


@pytest.fixture(params=["in_memory", "embedded_valkey", "redis_server"])
async def edit_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EditStore]:
    """Each store in turn, empty. Receipts behind idempotency keys are kept for one second."""
    if request.param == "in_memory":
        yield InMemoryEditStore(idempotency_ttl_s=1)
    else:
        async with serve(request.param, tmp_path) as served_store:
            yield served_store.store
