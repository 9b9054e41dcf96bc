"""A gateway that really listens, with working fakes for models: its control plane, or both planes."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from litestar import Litestar
from litestar.types import Receive, Scope, Send

from serac_gateway.auth.audience_labels import AudienceLabels
from serac_gateway.auth.authenticator import Authenticator, open_token_access
from serac_gateway.config.model import (
    AccessConfig,
    ConsoleConfig,
    GatewayConfig,
    GovernanceConfig,
    OidcConfig,
    RoutingConfig,
    ServerConfig,
    TrafficConfig,
    UpstreamConfig,
)
from serac_gateway.console.app import console_app
from serac_gateway.control_plane.conflicts import ConflictFinder
from serac_gateway.control_plane.firing import FiringCheck
from serac_gateway.control_plane.foreseen import Foresight
from serac_gateway.control_plane.http.api import control_plane_app
from serac_gateway.control_plane.http.colon_paths import ColonPaths
from serac_gateway.control_plane.http.dependencies import ControlPlaneContext
from serac_gateway.control_plane.model_threads import ModelThreads
from serac_gateway.control_plane.preview import Previewer
from serac_gateway.control_plane.proposals import Proposals
from serac_gateway.control_plane.search import EditSearch
from serac_gateway.control_plane.verification import Verifier
from serac_gateway.control_plane.webhooks.dispatcher import SendEvent, Webhooks
from serac_gateway.control_plane.webhooks.sending import Endpoint, send
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.data_plane.local_engine import LocalEngine
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.data_plane.request_id import add_request_id
from serac_gateway.data_plane.response_memory import ResponseMemory
from serac_gateway.data_plane.upstream.base import Upstream
from serac_gateway.data_plane.upstream.embedded_server import EmbeddedServer
from serac_gateway.data_plane.upstream.http import HttpUpstream
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.edit_index.follower import LogFollower
from serac_gateway.edit_index.heartbeat import ReplicaHeartbeat
from serac_gateway.errors import GatewayError
from serac_gateway.observability.counts import EngineCounts, RequestCounter, RouteCounts
from serac_gateway.observability.gauges import Gauges, Sources
from serac_gateway.observability.metrics import Instruments
from serac_gateway.observability.readiness import Readiness
from serac_gateway.observability.recent_requests import RecentRequests
from serac_gateway.observability.trials import TrialRecorder
from serac_gateway.routing.router import EditRouter
from serac_gateway.server.asgi import GatewayApp
from serac_gateway.server.runtime import Runtime, Runtimes
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.traffic_recorder import TrafficRecorder
from serac_gateway.testing import (
    ScriptedCounterfactualModel,
    ScriptedLanguageModel,
    ThresholdClassifier,
    WordEncoder,
    serving,
)

MAX_BODY_BYTES = 3_000_000
ROUTING = RoutingConfig()
NO_TRAFFIC = TrafficConfig()
SERVER = ServerConfig()
UNGOVERNED = GovernanceConfig()
CONSOLE = ConsoleConfig()
NO_TOKENS = OidcConfig()


@dataclass
class FakeGateway:
    """A gateway that is open but does not listen."""

    app: GatewayApp
    control_plane: ColonPaths
    context: ControlPlaneContext
    readiness: Readiness


class OpenedLater:
    """A data plane that belongs to the server's event loop."""

    plane: DataPlane

    @property
    def upstream(self) -> Upstream:
        return self.plane.upstream

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, refusal: GatewayError | None = None
    ) -> None:
        await self.plane(scope, receive, send, refusal)


@dataclass
class ControlPlane:
    """A running control plane, and the fakes to upset it with."""

    url: str
    client: httpx.Client
    gateway: FakeGateway
    store: InMemoryEditStore
    encoder: WordEncoder


def fake_gateway(
    store: EditStore,
    encoder: WordEncoder,
    pool: ThreadPoolExecutor,
    *,
    upstream_url: str = "http://upstream.invalid/v1",
    with_data_plane: bool = False,
    keys_required: bool = False,
    routing: RoutingConfig = ROUTING,
    traffic: TrafficConfig = NO_TRAFFIC,
    server: ServerConfig = SERVER,
    counterfactual: ScriptedCounterfactualModel | None = None,
    max_staleness_s: float = 10.0,
    governance: GovernanceConfig = UNGOVERNED,
    console: ConsoleConfig = CONSOLE,
    endpoints: Sequence[Endpoint] = (),
    send_webhook: SendEvent = send,
    oidc: OidcConfig = NO_TOKENS,
) -> FakeGateway:
    """Built as wiring.py builds it."""
    active_edits = ActiveEdits(store=store, encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width))
    classifier = ThresholdClassifier()
    router = EditRouter(encoder=encoder, active_edits=active_edits, classifier=classifier, config=routing)
    config = GatewayConfig(
        upstream=UpstreamConfig(url=upstream_url),
        traffic=traffic,
        routing=routing,
        access=AccessConfig(required=keys_required),
        server=server,
        governance=governance,
        console=console,
        oidc=oidc,
    )
    recorded = TrafficRecorder(store.traffic(), config.traffic)
    trials = TrialRecorder(store.trials(), recorded, pause_s=0.05)
    counts, engine_counts = RouteCounts(), EngineCounts()
    authenticator = Authenticator(store.api_keys(), required=keys_required, tokens=open_token_access(config))
    engine = LocalEngine(
        authenticator=authenticator,
        router=router,
        active_edits=active_edits,
        model=counterfactual or ScriptedCounterfactualModel(),
        decision_pool=pool,
        answer_pool=pool,
        config=config.models,
        decision_timeout_s=config.routing.decision_timeout_s,
        responses=ResponseMemory(),
        counts=engine_counts,
        traffic=recorded,
    )
    conflicts = ConflictFinder(
        active_edits=active_edits, encoder=encoder, classifier=classifier, config=routing
    )
    instruments = Instruments()
    recent_requests = RecentRequests(limit=config.feedback.remembered_requests)
    readiness = Readiness()
    heartbeat = ReplicaHeartbeat(store.replicas(), active_edits.positions)
    follower = LogFollower(
        store=store,
        active_edits=active_edits,
        max_staleness_s=max_staleness_s,
        on_applied=heartbeat.note_progress,
    )
    model_threads = ModelThreads(pool, timeout_s=config.models.control_timeout_s)
    webhooks = Webhooks(
        store.webhooks(), send=send_webhook, pauses_s=(0.05,), on_outcome=instruments.add_webhook_event
    )
    writer = EditWriter(
        store=store,
        encoder=encoder,
        active_edits=active_edits,
        pool=pool,
        conflicts=conflicts,
        governance=governance,
        announce=webhooks.announce,
    )
    previewer = Previewer(
        router=router,
        active_edits=active_edits,
        encoder=encoder,
        conflicts=conflicts,
        traffic=recorded,
        threads=model_threads,
    )
    context = ControlPlaneContext(
        writer=writer,
        store=store,
        active_edits=active_edits,
        follower=follower,
        heartbeat=heartbeat,
        wait_timeout_s=1.0,
        search=EditSearch(store=store, encoder=encoder, active_edits=active_edits, pool=pool),
        router=router,
        previewer=previewer,
        verifier=Verifier(
            router=router,
            active_edits=active_edits,
            encoder=encoder,
            answer=engine.answer_text,
            store=store.verifications(),
            pool=pool,
            announce=webhooks.announce,
        ),
        firing=FiringCheck(encoder=encoder, classifier=classifier, config=routing, threads=model_threads),
        traffic=recorded,
        recent_requests=recent_requests,
        feedback=config.feedback,
        instruments=instruments,
        model_threads=model_threads,
        upstream_url=upstream_url,
        route_counts=counts,
        data_path=Path(tempfile.gettempdir()),
        governance=governance,
        audience_labels=AudienceLabels(routing.audience_from),
        proposals=Proposals(
            store=store,
            writer=writer,
            foresight=Foresight(previewer),
            governance=governance,
            oidc=oidc,
            on_event=instruments.add_proposal,
            announce=webhooks.announce,
        ),
        webhooks=webhooks,
        backup_key=None,
    )

    instruments.registry.register(
        Gauges(
            Sources(
                generation=lambda: 1,
                models=lambda: config.models,
                counts=counts,
                active_edits=active_edits,
                purge_pending=lambda: False,
                follower=follower,
                engine=engine_counts,
                audience_labels=lambda: AudienceLabels(config.routing.audience_from),
                readiness=readiness,
                instruments=instruments,
            )
        )
    )

    served_plane = OpenedLater()

    @asynccontextmanager
    async def data_plane(app: Litestar) -> AsyncIterator[None]:
        upstream = HttpUpstream(config.upstream)  # belongs to the server's event loop
        served_plane.plane = DataPlane(
            engine=engine,
            upstream=upstream,
            config=config,
            counts=counts,
            observers=[
                RequestCounter(counts).add,
                instruments.add,
                recent_requests.observer(recorded),
                trials.add,
            ],
        )
        await active_edits.load()
        yield
        await upstream.close()

    @asynccontextmanager
    async def following(app: Litestar) -> AsyncIterator[None]:
        await heartbeat.start()
        follower.start()
        webhooks.reconfigure(endpoints)
        yield
        await webhooks.close()
        await recorded.close()
        await trials.close()
        await follower.close()
        await heartbeat.close()

    async def close() -> None:
        pass

    runtime = Runtime(
        number=1, config=config, data_plane=served_plane, control_plane=context, opened=(), close=close
    )
    control_plane = control_plane_app(
        readiness=readiness,
        authenticator=authenticator,
        instruments=instruments,
        reloader=None,
        max_body_bytes=MAX_BODY_BYTES,
        before_send=[add_request_id],
        lifespan=[data_plane, following] if with_data_plane else [following],
    )
    return FakeGateway(
        app=GatewayApp(Runtimes(runtime), control_plane, console_app(authenticator)),
        control_plane=control_plane,
        context=context,
        readiness=readiness,
    )


@contextmanager
def running_control_plane(
    store: InMemoryEditStore,
    routing: RoutingConfig = ROUTING,
    *,
    counterfactual: ScriptedCounterfactualModel | None = None,
) -> Iterator[ControlPlane]:
    """Serve it over a loopback socket until the context ends."""
    encoder = WordEncoder()
    with ThreadPoolExecutor(2) as pool:
        gateway = fake_gateway(store, encoder, pool, routing=routing, counterfactual=counterfactual)
        with (
            serving(gateway.app) as url,
            httpx.Client(
                base_url=f"{url}/serac/v1", timeout=30, headers={"content-type": "application/json"}
            ) as client,
        ):
            yield ControlPlane(url=url, client=client, gateway=gateway, store=store, encoder=encoder)


@contextmanager
def running_whole_gateway(
    script: Callable[[str], str], *, traffic: TrafficConfig = NO_TRAFFIC, routing: RoutingConfig = ROUTING
) -> Iterator[str]:
    """Serve both planes in front of an embedded server whose model answers by `script`; gives the URL."""
    with ThreadPoolExecutor(4) as pool:
        upstream = EmbeddedServer(ScriptedLanguageModel(script), pool)
        with serving(upstream) as upstream_url:
            gateway = fake_gateway(
                InMemoryEditStore(),
                WordEncoder(),
                pool,
                upstream_url=f"{upstream_url}/v1",
                with_data_plane=True,
                traffic=traffic,
                routing=routing,
            )
            with serving(gateway.app) as url:
                yield url
