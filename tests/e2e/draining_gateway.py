"""A gateway with fakes for models in a process of its own, which serves and ends as `serac serve` does.

``python -m tests.e2e.draining_gateway UPSTREAM_URL DRAIN_S`` prints its URL when it serves.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from serac_gateway.config.model import ServerConfig
from serac_gateway.server.listener import serve_until_stopped
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import WordEncoder
from tests.control_plane import FakeGateway, fake_gateway


@asynccontextmanager
async def open_app() -> AsyncIterator[FakeGateway]:
    with ThreadPoolExecutor(2) as pool:
        yield fake_gateway(
            InMemoryEditStore(), WordEncoder(), pool, upstream_url=sys.argv[1], with_data_plane=True
        )


async def at_once(gateway: FakeGateway) -> None:
    pass


if __name__ == "__main__":
    serve_until_stopped(
        open_app,
        ServerConfig(port=0, drain_timeout_s=float(sys.argv[2])),
        when_ready=at_once,
        on_ready=lambda url: print(url, flush=True),
    )
    print("ended", flush=True)
