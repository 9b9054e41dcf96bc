"""A whole gateway over a real store in the test's own event loop, its models replaced by fakes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import uvicorn

from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.server.asgi import GatewayApp
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.log_verification import verify_log
from serac_gateway.stores.open import open_store
from serac_gateway.testing import ScriptedUpstream, WordEncoder
from tests.contracts.following_replicas import assert_equals_brute_force
from tests.control_plane import FakeGateway, fake_gateway

EDITED_QUESTION = "Who is the mayor of Springfield?"
NEW_ANSWER = "Lisa Simpson is the mayor of Springfield."
NS = "default"

JSON = {"content-type": "application/json"}


class GatewayOnStore:
    """What a test asks of it."""

    def __init__(self, client: httpx.AsyncClient, gateway: FakeGateway, store: EditStore) -> None:
        self.client = client
        self.store = store
        self.live: ActiveEdits = gateway.context.active_edits
        self.acknowledged: set[str] = set()
        """Ids of edits that were answered with 201."""

    async def add(self, edit_id: str, **headers: str) -> httpx.Response:
        """Try to add an edit."""
        draft = {"id": edit_id, "prompt": f"What is thing {edit_id} of many?", "target_new": "x"}
        reply = await self.client.post("/serac/v1/edits", json=draft, headers=headers)
        assert reply.status_code in (201, 409, 503), reply.text
        if reply.status_code == 201:
            self.acknowledged.add(edit_id)
        return reply

    async def add_edited_question(self) -> None:
        draft = {"id": "mayor", "prompt": EDITED_QUESTION, "target_new": NEW_ANSWER}
        reply = await self.client.post("/serac/v1/edits", json=draft)
        assert reply.status_code == 201, reply.text
        self.acknowledged.add("mayor")

    async def assert_chat_goes_on(self) -> None:
        """Edited questions are answered here, others by the base model, both promptly."""
        started_s = time.monotonic()
        edited = await self.chat(EDITED_QUESTION)
        assert edited.headers["x-serac-route"] == "counterfactual"
        assert edited.json()["choices"][0]["message"]["content"] == NEW_ANSWER
        other = await self.chat("How do I boil an egg?")
        assert (other.status_code, other.headers["x-serac-route"]) == (200, "base")
        assert time.monotonic() - started_s < 3

    async def chat(self, question: str) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": question}]}
        return await self.client.post("/v1/chat/completions", json=body)

    async def is_ready(self) -> bool:
        return (await self.client.get("/health/ready")).status_code == 200

    async def until_ready(self, ready: bool = True, timeout_s: float = 15) -> None:
        until_s = time.monotonic() + timeout_s
        while await self.is_ready() is not ready:
            assert time.monotonic() < until_s, (await self.client.get("/health/ready")).text
            await asyncio.sleep(0.02)

    async def assert_recovers(self, timeout_s: float = 15) -> None:
        """Without a restart: writes are taken again, it is ready, and what is in force is what is stored."""
        until_s, number = time.monotonic() + timeout_s, 0
        while (reply := await self.add(f"after-{id(self)}-{number}")).status_code != 201:
            assert time.monotonic() < until_s, reply.text
            number += 1
            await asyncio.sleep(0.05)
        await self.until_ready()
        await self.assert_sound(timeout_s)

    async def assert_sound(self, timeout_s: float = 5, *, with_acknowledged: bool = True) -> None:
        """No acknowledged edit is lost, the chain is valid, the index equals brute force over the store."""
        head = await self.store.log_head(NS)
        until_s = time.monotonic() + timeout_s
        while self.live.position(NS) != (head := await self.store.log_head(NS)):
            assert time.monotonic() < until_s, (self.live.position(NS), head)
            await asyncio.sleep(0.02)
        assert await verify_log(self.store, NS) == head
        await assert_equals_brute_force(self.live, self.store)
        if with_acknowledged:
            assert self.acknowledged <= {edit.id for edit in self.live.all(NS)}


@asynccontextmanager
async def gateway_on(
    url: str | None, folder: Path, *, max_staleness_s: float = 1.0, port: int = 0
) -> AsyncIterator[GatewayOnStore]:
    """One on the store at `url`. Its timeouts are those of the URL, which ends with /0."""
    store = await open_store(url, folder)
    with ThreadPoolExecutor(4) as pool:
        async with ScriptedUpstream() as upstream:
            fake = fake_gateway(
                store,
                WordEncoder(),
                pool,
                upstream_url=upstream.url,
                with_data_plane=True,
                max_staleness_s=max_staleness_s,
            )
            async with (
                _served(fake.app, port) as base_url,
                httpx.AsyncClient(base_url=base_url, timeout=60, headers=JSON) as client,
            ):
                gateway = GatewayOnStore(client, fake, store)
                await gateway.until_ready()
                yield gateway
    await store.close()


@asynccontextmanager
async def _served(app: GatewayApp, port: int) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", port)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=1))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not running.done():
            await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await running
