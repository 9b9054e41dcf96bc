"""Builds every part, puts them together, and serves. No other module constructs what it uses.

The models are opened in model_opening.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from litestar import Litestar
from litestar.datastructures import State

from serac_gateway.announcing import ReplicaAnnouncer
from serac_gateway.api_keys import checked_pepper
from serac_gateway.config import (
    KEY_PEPPER_VARIABLE,
    GatewayConfig,
    UpstreamConfig,
    upstream_api_key_variable,
)
from serac_gateway.conflicts import ConflictFinder
from serac_gateway.editing import Editor
from serac_gateway.following import LogFollower
from serac_gateway.http.answering import CounterfactualAnswers
from serac_gateway.http.application import application
from serac_gateway.http.authentication import Authenticator
from serac_gateway.http.gauges import Gauges, Sources
from serac_gateway.http.instruments import Instruments
from serac_gateway.http.parts import ControlParts, Readiness
from serac_gateway.http.proxy import DataPlane
from serac_gateway.http.recent_requests import RecentRequests
from serac_gateway.http.request_log import RequestLog
from serac_gateway.http.tracing import open_tracing
from serac_gateway.live_edits import LiveEdits
from serac_gateway.metrics import RouteCounts
from serac_gateway.model_opening import OnProgress, index_maker, open_models
from serac_gateway.previewing import Previewer
from serac_gateway.recorded_traffic import RecordedTraffic
from serac_gateway.routing import EditRouter
from serac_gateway.searching import EditSearch
from serac_gateway.server import serve_until_stopped
from serac_gateway.stores.api_keys import ApiKeyStore
from serac_gateway.stores.open import open_configured_store
from serac_gateway.upstream.base import Upstream
from serac_gateway.upstream.breaker import BreakingUpstream
from serac_gateway.upstream.by_model import ByModelUpstream, Served
from serac_gateway.upstream.embedded import start_embedded_upstream
from serac_gateway.upstream.http import HttpUpstream
from serac_gateway.verifying import Verifier

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_gateway(
    config: GatewayConfig, *, on_progress: OnProgress = lambda part, text: None
) -> AsyncIterator[Litestar]:
    """The whole gateway as an ASGI application, its parts closed in reverse order at the end.

    It serves when it is given; the stored edits may still be loading, which /health/ready tells and
    `wait_until_ready` waits for. Until then /v1 passes through and /serac/v1 answers 503.

    Raises:
        ConfigError: A part cannot be had.
    """
    async with AsyncExitStack() as stack:
        config.data_path.mkdir(parents=True, exist_ok=True)
        store = await open_configured_store(config)
        stack.push_async_callback(store.close)
        authenticator = await _open_authenticator(config, store.api_keys())
        stack.push_async_callback(authenticator.close)
        starting = asyncio.ensure_future(open_upstream(config, on_progress))
        stack.push_async_callback(_close_when_started, starting)
        models = await asyncio.to_thread(open_models, config, on_progress)
        stack.callback(models.counterfactual.close)
        upstream, upstream_url = await starting
        decision_pool = stack.enter_context(
            ThreadPoolExecutor(config.models.decision_threads, thread_name_prefix="decision")
        )
        answer_pool = stack.enter_context(
            ThreadPoolExecutor(config.models.answer_threads, thread_name_prefix="answer")
        )
        live_edits = LiveEdits(
            store=store, encoder=models.encoder, make_index=index_maker(models.encoder.width)
        )
        router = EditRouter(
            encoder=models.encoder,
            live_edits=live_edits,
            classifier=models.classifier,
            config=config.routing,
        )
        conflicts = ConflictFinder(
            live_edits=live_edits,
            encoder=models.encoder,
            classifier=models.classifier,
            config=config.routing,
        )
        counts = RouteCounts()
        traffic = RecordedTraffic(store.traffic(), config.traffic)
        stack.push_async_callback(traffic.close)
        readiness = Readiness("edits")
        tracing = open_tracing(config.tracing)
        stack.push_async_callback(asyncio.to_thread, tracing.close)
        recent_requests = RecentRequests(limit=config.feedback.remembered_requests, traffic=traffic)
        instruments = Instruments(config.metrics, has_edits=router.has_edits)
        answers = CounterfactualAnswers(
            model=models.counterfactual, live_edits=live_edits, pool=answer_pool, config=config.models
        )
        data_plane = DataPlane(
            router=router,
            upstream=upstream,
            answers=answers,
            traffic=traffic,
            tracing=tracing,
            decision_pool=decision_pool,
            config=config,
            counts=counts,
            authenticator=authenticator,
            instruments=instruments,
            observers=[RequestLog(config.logging).add, recent_requests.add],
        )
        announcer = ReplicaAnnouncer(store.replicas(), live_edits.positions)
        stack.push_async_callback(announcer.close)
        follower = LogFollower(
            store=store,
            live_edits=live_edits,
            max_staleness_s=config.store.max_staleness_s,
            on_applied=announcer.note_progress,
        )
        stack.push_async_callback(follower.close)
        parts = ControlParts(
            editor=Editor(
                store=store,
                encoder=models.encoder,
                live_edits=live_edits,
                pool=decision_pool,
                threads=config.models.decision_threads,
                conflicts=conflicts,
            ),
            store=store,
            live_edits=live_edits,
            follower=follower,
            announcer=announcer,
            wait_timeout_s=config.store.wait_timeout_s,
            search=EditSearch(
                store=store, encoder=models.encoder, live_edits=live_edits, pool=decision_pool
            ),
            router=router,
            previewer=Previewer(
                router=router,
                live_edits=live_edits,
                encoder=models.encoder,
                conflicts=conflicts,
                traffic=traffic,
                pool=decision_pool,
            ),
            verifier=Verifier(
                router=router,
                live_edits=live_edits,
                encoder=models.encoder,
                answers=answers,
                store=store.verifications(),
                pool=decision_pool,
            ),
            traffic=traffic,
            recent_requests=recent_requests,
            feedback=config.feedback,
            instruments=instruments,
            decision_pool=decision_pool,
            upstream_url=upstream_url,
            route_counts=counts,
        )  # fmt: skip
        instruments.registry.register(
            Gauges(
                Sources(
                    config=config,
                    counts=counts,
                    live_edits=live_edits,
                    follower=follower,
                    answers=answers,
                    decisions_open=lambda: data_plane.decisions_open,
                    readiness=readiness,
                    instruments=instruments,
                )
            )
        )
        app = application(
            data_plane,
            readiness=readiness,
            authenticator=authenticator,
            instruments=instruments,
            max_control_body_bytes=config.server.max_control_body_bytes,
        )
        loading = asyncio.ensure_future(_load_edits(app.state, parts, on_progress))
        stack.push_async_callback(_cancel, loading)
        app.state.loading = loading
        yield app


def serve(
    config: GatewayConfig,
    *,
    on_progress: OnProgress = lambda part, text: None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until SIGINT or SIGTERM; running answers may finish within the drain limit.

    `on_ready` is told the gateway's URL once edits are decided on.

    Raises:
        ConfigError: A part cannot be had, or the address is taken.
    """
    serve_until_stopped(
        lambda: open_gateway(config, on_progress=on_progress),
        config.server,
        when_ready=wait_until_ready,
        on_ready=on_ready,
    )


async def wait_until_ready(app: Litestar) -> None:
    """Return when the stored edits are loaded; raises what made the loading fail."""
    await asyncio.shield(app.state.loading)


async def _open_authenticator(config: GatewayConfig, keys: ApiKeyStore) -> Authenticator:
    authenticator = Authenticator(
        keys,
        required=config.demands_keys,
        pepper=checked_pepper(os.environ.get(KEY_PEPPER_VARIABLE)),
        outage_grace_s=config.access.outage_grace_s,
    )
    if config.demands_keys:
        await authenticator.check_someone_can_enter()
    elif not config.is_loopback:
        log.warning("whoever reaches %r can edit: access.required is false", config.server.host)
    return authenticator


async def open_upstream(
    config: GatewayConfig, on_progress: OnProgress = lambda part, text: None
) -> tuple[Upstream, str]:
    """The upstream or upstreams that are configured, and the URL of the default one.

    Raises:
        ConfigError: One cannot be had.
    """
    others = [
        Served(models=one.models, upstream=_http_upstream(one, name))
        for name, one in config.upstreams.items()
    ]
    default: Upstream
    if config.upstream.url is not None:
        default, url = _http_upstream(config.upstream, None), config.upstream.url
    else:
        embedded = await start_embedded_upstream(
            config=config.upstream,
            data_path=config.data_path,
            on_progress=lambda text: on_progress("base model", text),
        )
        default, url = embedded, embedded.url
    return (ByModelUpstream(default, others) if others else default), url


def _http_upstream(config: UpstreamConfig, name: str | None) -> Upstream:
    return BreakingUpstream(
        HttpUpstream(config, api_key=os.environ.get(upstream_api_key_variable(name)) or None),
        name=name or "upstream",
        failures=config.breaker_failures,
        pause_s=config.breaker_pause_s,
    )


async def _close_when_started(starting: asyncio.Future[tuple[Upstream, str]]) -> None:
    if not starting.done():
        await _cancel(starting)
    elif not starting.cancelled() and starting.exception() is None:
        await starting.result()[0].close()


async def _load_edits(state: State, parts: ControlParts, on_progress: OnProgress) -> None:
    def report(count: int) -> None:
        readiness.note("edits", f"{count:,} loaded")
        on_progress("edits", f"{count:,} loaded")

    readiness: Readiness = state.readiness
    total = await parts.live_edits.load(report)
    # Announced first: what is committed from now on is waited for, what was before is caught up with.
    await parts.announcer.start()
    parts.follower.start()
    await parts.follower.caught_up()
    state.control_parts = parts
    readiness.done("edits")
    log.info("ready with %d edits", total)


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
