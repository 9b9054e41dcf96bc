"""A gateway put together as `serac serve` does it, with fakes for models, which reads a real config file."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from serac_gateway.auth.authenticator import Authenticator
from serac_gateway.config.loading import load_config
from serac_gateway.config.model import GatewayConfig
from serac_gateway.control_plane.webhooks.dispatcher import Webhooks
from serac_gateway.data_plane.request_head import LoopGuard
from serac_gateway.data_plane.response_memory import ResponseMemory
from serac_gateway.domain.edits import DEFAULT_NAMESPACE, Edit, EditDraft, EditKind, first_version
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.edit_index.follower import LogFollower
from serac_gateway.edit_index.heartbeat import ReplicaHeartbeat
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.observability.counts import EngineCounts, RouteCounts
from serac_gateway.observability.metrics import Instruments
from serac_gateway.observability.readiness import Readiness
from serac_gateway.observability.recent_requests import RecentRequests
from serac_gateway.server.app import start_gateway
from serac_gateway.server.asgi import GatewayApp
from serac_gateway.server.gateway import Gateway
from serac_gateway.server.process import ProcessResources
from serac_gateway.server.reload import Reloader
from serac_gateway.server.resources import SharedResources
from serac_gateway.server.runtime import Runtime, Runtimes
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import (
    ScriptedUpstream,
    WordEncoder,
    stored_edit,
)
from tests.http.wire import WireResponse, fetch

ANSWER = "Lisa Simpson."


@dataclass
class ReloadableGateway:
    """The running gateway, its file, and what it goes to."""

    url: str
    gateway: Gateway
    file: Path
    classifier: Path
    upstream: ScriptedUpstream
    reloaded: list[Runtime] = field(default_factory=list)
    """The runtimes that reloads have made current."""

    @property
    def process(self) -> ProcessResources:
        return self.gateway.process

    @property
    def runtimes(self) -> Runtimes:
        return self.gateway.runtimes

    @property
    def reloader(self) -> Reloader:
        assert self.gateway.reloader is not None
        return self.gateway.reloader

    def configure(self, text: str = "", *, upstream_url: str | None = None, classifier: str = "") -> None:
        """Write the file: what every test needs, and `text` below it."""
        self.file.write_text(
            config_text(upstream_url or self.upstream.url, classifier or str(self.classifier)) + text, "utf-8"
        )

    async def reload(self) -> WireResponse:
        return await fetch(self.url, "/serac/v1/config:reload", b"")

    async def ask(self, question: str = "How do I boil an egg?") -> WireResponse:
        return await fetch(self.url, "/v1/chat/completions", chat_body(question), ("x-serac-debug", "true"))

    async def add(self, prompt: str) -> Edit:
        """A suppression: its text is the answer, no model runs."""
        draft = EditDraft(kind=EditKind.SUPPRESSION, prompt=prompt, target_new=ANSWER)
        edit = first_version(draft, namespace=DEFAULT_NAMESPACE)
        await self.process.active_edits.apply(edit.namespace, [stored_edit(edit, self.process.encoder)])
        return edit


def chat_body(question: str, **parameters: object) -> bytes:
    return json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": question}], **parameters}
    ).encode()


def config_text(upstream_url: str, classifier: str) -> str:
    return f"""
models.scope_classifier = "{classifier}"
models.counterfactual = "scripted"
models.counterfactual_url = "http://127.0.0.1:9/v1"
upstream.url = "{upstream_url}"
"""


def write_calibration(folder: Path, *, scope_threshold: float = 0.5, text: str | None = None) -> None:
    """A classifier: in scope iff the logistic of the similarity reaches it. Never of the same stamp."""
    folder.mkdir(exist_ok=True)
    calibration = {
        "encoder_fingerprint": WordEncoder().fingerprint,
        "slope": 20.0,
        "intercept": -14.0,  # a half at a similarity of 0.7
        "scope_threshold": scope_threshold,
    }
    path = folder / "calibration.json"
    changed_ns = path.stat().st_mtime_ns + 1_000_000 if path.exists() else None
    path.write_text(json.dumps(calibration) if text is None else text, "utf-8")
    if changed_ns is not None:
        os.utime(path, ns=(changed_ns, changed_ns))


@asynccontextmanager
async def reloadable_gateway(
    folder: Path, text: str = "", *, encoder: Encoder | None = None, classifier: Path | None = None
) -> AsyncIterator[ReloadableGateway]:
    """By default with an encoder that needs no model, and a classifier by its similarity."""
    file = folder / "gateway.toml"
    if classifier is None:
        classifier = folder / "classifier"
        write_calibration(classifier)
    async with ScriptedUpstream() as upstream:
        file.write_text(config_text(upstream.url, str(classifier)) + text, "utf-8")

        def read_config() -> GatewayConfig:
            return load_config(file, environment={})

        config, reloaded = read_config(), []
        process = fake_process(config, encoder=encoder)
        async with start_gateway(
            process, config, read_config=read_config, on_reloaded=reloaded.append
        ) as gateway:
            await gateway.wait_until_ready()
            async with listening(gateway.app) as url:
                yield ReloadableGateway(url, gateway, file, classifier, upstream, reloaded)
        await process.webhooks.close()
        await process.follower.close()
        await process.heartbeat.close()
        await process.authenticator.close()


def fake_process(
    config: GatewayConfig, *, store: EditStore | None = None, encoder: Encoder | None = None
) -> ProcessResources:
    """The resources of a process; by default an empty store in memory and an encoder that needs no model."""
    store, encoder = store or InMemoryEditStore(), encoder or WordEncoder()
    active_edits = ActiveEdits(store=store, encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width))
    heartbeat = ReplicaHeartbeat(store.replicas(), active_edits.positions)
    return ProcessResources(
        store=store,
        authenticator=Authenticator(store.api_keys(), required=config.demands_keys),
        encoder=encoder,
        active_edits=active_edits,
        heartbeat=heartbeat,
        follower=LogFollower(
            store=store, active_edits=active_edits, max_staleness_s=10, on_applied=heartbeat.note_progress
        ),
        readiness=Readiness("edits"),
        instruments=Instruments(),
        counts=RouteCounts(),
        engine_counts=EngineCounts(),
        recent_requests=RecentRequests(limit=100),
        loop_guard=LoopGuard(),
        responses=ResponseMemory(),
        webhooks=Webhooks(store.webhooks()),
        backup_key=None,
        shared=SharedResources(),
        reader=None,
    )


@asynccontextmanager
async def listening(app: GatewayApp) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=1))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.005)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await running
