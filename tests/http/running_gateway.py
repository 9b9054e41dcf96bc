"""A gateway that really listens, in front of a scripted upstream, in the test's own event loop."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from serac_gateway.auth.audience_labels import AudienceLabels
from serac_gateway.auth.authenticator import Authenticator, open_token_access
from serac_gateway.auth.key_store import ApiKeyStore
from serac_gateway.config.model import GatewayConfig, UpstreamConfig
from serac_gateway.console.app import console_app
from serac_gateway.control_plane.http.api import control_plane_app
from serac_gateway.data_plane.local_engine import LocalEngine
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.data_plane.request_id import add_request_id
from serac_gateway.data_plane.response_memory import ResponseMemory
from serac_gateway.data_plane.upstream.allowed_requests import AllowedRequests
from serac_gateway.data_plane.upstream.base import Upstream
from serac_gateway.data_plane.upstream.http import HttpUpstream
from serac_gateway.domain.edits import DEFAULT_NAMESPACE, Edit, EditDraft, first_version, retired
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.edit_index.follower import LogFollower
from serac_gateway.observability.counts import EngineCounts, RequestCounter, RouteCounts
from serac_gateway.observability.gauges import Gauges, Sources
from serac_gateway.observability.metrics import Instruments
from serac_gateway.observability.readiness import Readiness
from serac_gateway.observability.request_log import RequestLog
from serac_gateway.observability.tracing import Tracing, Untraced
from serac_gateway.routing.router import EditRouter
from serac_gateway.server.asgi import GatewayApp
from serac_gateway.server.runtime import Runtime, Runtimes
from serac_gateway.stores.memory.side_stores import InMemoryApiKeyStore
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import (
    ScriptedCounterfactualModel,
    ScriptedUpstream,
    ThresholdClassifier,
    WordEncoder,
    stored_edit,
)
from tests.http.listening import listening
from tests.http.thin_gateway import gateway_of_engine
from tests.http.wire import WireResponse, fetch
from tests.http.worker_in_front import worker_in_front
from tests.word_form_heads import word_form_reader

EDITED_QUESTION = "Who is the mayor of Springfield?"
NEW_ANSWER = "Lisa Simpson is the mayor of Springfield."
OTHER_QUESTION = "How do I boil an egg?"
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
EVENTS = (("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))
"""The headers of an event stream."""


@dataclass
class Gateway:
    """The running gateway and what a test may want to look at or to upset."""

    url: str
    upstream: ScriptedUpstream
    active_edits: ActiveEdits
    encoder: WordEncoder
    classifier: ThresholdClassifier
    counterfactual: ScriptedCounterfactualModel
    engine_counts: EngineCounts
    counts: RouteCounts
    instruments: Instruments
    engine_url: str | None = None
    """Where its engine listens, if that is elsewhere."""

    @property
    def in_flight(self) -> int:
        """Requests that have not ended, here and in a worker as it reported last."""
        return self.counts.in_flight + sum(self.counts.in_flight_of_workers.values())

    async def post(
        self, body: bytes | dict, *headers: tuple[str, str], target: str = "/v1/chat/completions"
    ) -> WireResponse:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await fetch(self.url, target, payload, ("content-type", "application/json"), *headers)

    async def add(
        self, prompt: str, target_new: str, namespace: str = DEFAULT_NAMESPACE, **fields: object
    ) -> Edit:
        draft = EditDraft(prompt=prompt, target_new=target_new, **fields)
        edit = first_version(draft, namespace=namespace)
        await self._apply(edit)
        return edit

    async def retire(self, edit: Edit) -> None:
        await self._apply(retired(edit, now=datetime.now(UTC)))

    async def _apply(self, edit: Edit) -> None:
        await self.active_edits.apply(edit.namespace, [stored_edit(edit, self.encoder)])


def chat(question: str, **parameters: object) -> dict:
    return {"model": "m", "messages": [{"role": "user", "content": question}], **parameters}


@asynccontextmanager
async def running_gateway(
    *,
    config: GatewayConfig | None = None,
    upstream: ScriptedUpstream | None = None,
    upstream_url: str | None = None,
    api_key: str | None = None,
    counterfactual: ScriptedCounterfactualModel | None = None,
    loaded: bool = True,
    depends_threshold: float | None = None,
    keys_required: bool = False,
    key_store: ApiKeyStore | None = None,
    tracing: Tracing | None = None,
    through_worker: bool = False,
    through_engine: bool = False,
    form_heads: Path | None = None,
) -> AsyncIterator[Gateway]:
    config = config or GatewayConfig()
    if keys_required:
        access = msgspec.structs.replace(config.access, required=True)
        config = msgspec.structs.replace(config, access=access)
    encoder, classifier = WordEncoder(), ThresholdClassifier(depends_threshold=depends_threshold)
    counterfactual = counterfactual or ScriptedCounterfactualModel()
    store = InMemoryEditStore()
    active_edits = ActiveEdits(store=store, encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width))
    if loaded:
        await active_edits.load()
    counts, engine_counts = RouteCounts(), EngineCounts()
    labels = AudienceLabels(config.routing.audience_from)
    instruments = Instruments(config.metrics, has_edits=lambda name: active_edits.count(name) > 0)
    authenticator = Authenticator(
        key_store or InMemoryApiKeyStore(),
        required=keys_required,
        outage_grace_s=config.access.outage_grace_s,
        tokens=open_token_access(config),
    )
    with (
        ThreadPoolExecutor(config.models.decision_threads) as decision_pool,
        ThreadPoolExecutor(config.models.answer_threads) as answer_pool,
    ):
        async with upstream or ScriptedUpstream() as scripted:
            settings = msgspec.structs.replace(config.upstream, url=upstream_url or scripted.url)
            http_upstream: Upstream = HttpUpstream(settings, api_key=api_key)
            if api_key is not None:
                http_upstream = AllowedRequests(
                    http_upstream, settings.allowed_paths, key="upstream.allowed_paths"
                )
            router = EditRouter(
                encoder=encoder, active_edits=active_edits, classifier=classifier, config=config.routing
            )
            engine = LocalEngine(
                authenticator=authenticator,
                router=router,
                active_edits=active_edits,
                model=counterfactual,
                decision_pool=decision_pool,
                answer_pool=answer_pool,
                config=config.models,
                responses=ResponseMemory(),
                counts=engine_counts,
                reader=None if form_heads is None else word_form_reader(encoder, form_heads),
            )
            plane = DataPlane(
                engine=engine,
                upstream=http_upstream,
                config=config,
                counts=counts,
                tracing=tracing or Untraced(),
                observers=[
                    RequestCounter(counts).add,
                    instruments.add,
                    lambda request: instruments.add_labels(request, labels),
                    RequestLog(config.logging).add,
                ],
            )
            instruments.registry.register(
                Gauges(
                    Sources(
                        generation=lambda: 1,
                        models=lambda: config.models,
                        counts=counts,
                        active_edits=active_edits,
                        purge_pending=lambda: False,
                        follower=LogFollower(store=store, active_edits=active_edits, max_staleness_s=10),
                        engine=engine_counts,
                        audience_labels=lambda: labels,
                        readiness=Readiness(),
                        instruments=instruments,
                    )
                )
            )
            control_plane = control_plane_app(  # of which only /metrics is called
                readiness=Readiness(),
                authenticator=authenticator,
                instruments=instruments,
                reloader=None,
                max_body_bytes=1_000_000,
                before_send=[add_request_id],
            )
            runtime = Runtime(
                number=1,
                config=config,
                data_plane=plane,
                control_plane=None,
                opened=(),
                close=http_upstream.close,
            )
            app = GatewayApp(Runtimes(runtime), control_plane, console_app(authenticator))
            if through_worker or through_engine:
                serving = (worker_in_front if through_worker else gateway_of_engine)(
                    app,
                    plane,
                    active_edits=active_edits,
                    counts=counts,
                    config=config,
                    upstream_url=settings.url or "",
                    api_key=api_key,
                    keys_required=keys_required,
                )
            else:
                serving = listening(app, socket.create_server(("127.0.0.1", 0)), config.server)
            try:
                async with serving as url:
                    yield Gateway(
                        url=url,
                        upstream=scripted,
                        active_edits=active_edits,
                        encoder=encoder,
                        classifier=classifier,
                        counterfactual=counterfactual,
                        engine_counts=engine_counts,
                        counts=counts,
                        instruments=instruments,
                        engine_url=getattr(url, "engine_url", None),
                    )
            finally:
                await authenticator.close()
                await http_upstream.close()


def fast(**changes: float) -> GatewayConfig:
    """Upstream timeouts short enough to wait for."""
    return GatewayConfig(upstream=UpstreamConfig(**changes))
