"""Opens a gateway and serves it.

Objects are constructed here and in the modules that this one calls: process.py opens the resources of the
process, wiring.py with upstreams.py and tracing.py those of a runtime. Every other module receives the
objects that it uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from litestar import Litestar

from serac_gateway.auth.audience_labels import AudienceLabels
from serac_gateway.config.diff import Reloaded, ReloadOutcome
from serac_gateway.config.model import OIDC_CLIENT_SECRET_VARIABLE, GatewayConfig
from serac_gateway.console.app import console_app
from serac_gateway.control_plane.clock_watch import watch_clock
from serac_gateway.control_plane.http.api import control_plane_app
from serac_gateway.control_plane.webhooks.events import reload_event, reload_refused_event
from serac_gateway.data_plane.request_id import add_request_id
from serac_gateway.errors import ConfigError, ReloadRefusedError
from serac_gateway.models.progress import OnProgress, Step
from serac_gateway.observability.gauges import Gauges, Sources
from serac_gateway.server.asgi import GatewayApp
from serac_gateway.server.engines.engine_server import EngineSocket, serving_gateways
from serac_gateway.server.engines.gateway import ThinGateway, open_thin_gateway
from serac_gateway.server.gateway import Gateway
from serac_gateway.server.listener import serve_until_stopped
from serac_gateway.server.process import ProcessResources, open_process_resources
from serac_gateway.server.reload import OnReloaded, ReadConfig, Reloader
from serac_gateway.server.runtime import Runtime, Runtimes
from serac_gateway.server.wiring import open_runtime
from serac_gateway.server.workers.host import workers_frontend

log = logging.getLogger(__name__)


def serve(
    config: GatewayConfig,
    *,
    read_config: ReadConfig | None = None,
    on_progress: OnProgress = lambda name, step: None,
    on_ready: Callable[[str], None] = lambda url: None,
    on_reloaded: OnReloaded = lambda runtime: None,
) -> None:
    """Serve until SIGINT or SIGTERM; running answers may finish within `server.drain_timeout_s`.

    `on_ready` is called with the gateway's URL when the stored edits are loaded. With `read_config` SIGHUP
    and the API reload the configuration, and `on_reloaded` is called with each new runtime.

    Raises:
        ConfigError: Something cannot be opened as configured, or the address is taken.
    """
    workers = config.server.workers
    serve_until_stopped(
        lambda: open_gateway(
            config, read_config=read_config, on_progress=on_progress, on_reloaded=on_reloaded
        ),
        config.server,
        when_ready=Gateway.wait_until_ready,
        on_ready=on_ready,
        on_sighup=None if read_config is None else _reload,
        open_frontend=None if workers == 1 else partial(workers_frontend, count=workers),
    )


def serve_engine(
    config: GatewayConfig,
    *,
    read_config: ReadConfig | None = None,
    on_progress: OnProgress = lambda name, step: None,
    on_ready: Callable[[str], None] = lambda url: None,
    on_reloaded: OnReloaded = lambda runtime: None,
) -> None:
    """As `serve`, and serve the gateways that connect to `engine.listen` with store, edits and models.

    Raises:
        ConfigError: As `serve`; also if several workers are configured.
    """
    if config.server.workers != 1:
        raise ConfigError(
            f"server.workers is {config.server.workers}, and an engine is one process; set it to 1: the"
            " gateways in front of it serve HTTP",
            field="server.workers",
        )
    observers = [on_reloaded]

    def note_reloaded(runtime: Runtime) -> None:
        for note in observers:
            note(runtime)

    @asynccontextmanager
    async def open_engine() -> AsyncIterator[Gateway]:
        with contextlib.closing(EngineSocket(config.engine)) as bound:  # before any model is loaded
            async with (
                open_gateway(
                    config,
                    read_config=read_config,
                    on_progress=on_progress,
                    on_reloaded=note_reloaded,
                ) as gateway,
                serving_gateways(gateway, config, bound) as renew,
            ):
                observers.append(renew)
                yield gateway

    serve_until_stopped(
        open_engine,
        config.server,
        when_ready=Gateway.wait_until_ready,
        on_ready=on_ready,
        on_sighup=None if read_config is None else _reload,
    )


def serve_without_models(
    config: GatewayConfig, *, on_ready: Callable[[str], None] = lambda url: None
) -> None:
    """Serve until SIGINT or SIGTERM as a gateway of the engine at `engine.url`.

    `on_ready` is called when the engine is connected. SIGHUP reads this side's certificate again, and
    nothing else: such a gateway starts in a second.

    Raises:
        ConfigError: Something cannot be opened as configured, or the address is taken.
    """

    async def renew(gateway: ThinGateway) -> None:
        gateway.renew_certificate()
        log.info("the certificate was read again; restart this gateway to change its configuration")

    serve_until_stopped(
        lambda: open_thin_gateway(config),
        config.server,
        when_ready=ThinGateway.wait_until_ready,
        on_ready=on_ready,
        on_sighup=renew,
        lifespan="off",
    )


@asynccontextmanager
async def open_gateway(
    config: GatewayConfig,
    *,
    read_config: ReadConfig | None = None,
    on_progress: OnProgress = lambda name, step: None,
    on_reloaded: OnReloaded = lambda runtime: None,
) -> AsyncIterator[Gateway]:
    """Open a gateway, to be served by any ASGI server; at the end it is closed in reverse order.

    Its stored edits may still be loading when it is yielded: see `Gateway.wait_until_ready`. With
    `read_config` it has a reloader, and `on_reloaded` is called with each new runtime.

    Raises:
        ConfigError: Something cannot be opened as configured.
    """
    async with AsyncExitStack() as stack:
        process = await open_process_resources(config, stack, on_progress)
        yield await stack.enter_async_context(
            start_gateway(
                process, config, read_config=read_config, on_progress=on_progress, on_reloaded=on_reloaded
            )
        )


@asynccontextmanager
async def start_gateway(
    process: ProcessResources,
    config: GatewayConfig,
    *,
    read_config: ReadConfig | None = None,
    on_progress: OnProgress = lambda name, step: None,
    on_reloaded: OnReloaded = lambda runtime: None,
) -> AsyncIterator[Gateway]:
    """As `open_gateway`, with process resources that the caller has opened and closes."""
    async with AsyncExitStack() as stack:
        runtimes = Runtimes(await open_runtime(1, config, process, on_progress))
        stack.push_async_callback(runtimes.close)
        process.instruments.registry.register(_gauges(process, runtimes))
        process.webhooks.reconfigure(runtimes.current.webhooks)
        reloader = None
        if read_config is not None:
            reloader = Reloader(
                runtimes=runtimes,
                read_config=read_config,
                open_runtime=partial(_open_next_runtime, process),
                instruments=process.instruments,
                on_reloaded=[partial(_reconfigure_access, process), on_reloaded],
                on_outcome=partial(_note_reload, process),
            )
        control_plane = control_plane_app(
            readiness=process.readiness,
            authenticator=process.authenticator,
            instruments=process.instruments,
            reloader=reloader,
            max_body_bytes=config.server.max_control_body_bytes,
            before_send=[add_request_id],
        )
        loading = asyncio.ensure_future(_load_edits(process, on_progress))
        stack.push_async_callback(_cancel, loading)
        watching = asyncio.ensure_future(_watch_when_loaded(process, runtimes, loading))
        stack.push_async_callback(_cancel, watching)
        yield Gateway(
            app=GatewayApp(runtimes, control_plane, _console(process)),
            process=process,
            runtimes=runtimes,
            reloader=reloader,
            loading=loading,
        )


def _console(process: ProcessResources) -> Litestar:
    client_secret = os.environ.get(OIDC_CLIENT_SECRET_VARIABLE) or None
    return console_app(process.authenticator, client_secret=client_secret)


def _gauges(process: ProcessResources, runtimes: Runtimes) -> Gauges:
    return Gauges(
        Sources(
            generation=lambda: runtimes.current.number,
            models=lambda: runtimes.current.config.models,
            counts=process.counts,
            active_edits=process.active_edits,
            purge_pending=lambda: process.store.has_pending_purge,
            follower=process.follower,
            engine=process.engine_counts,
            audience_labels=lambda: AudienceLabels(runtimes.current.config.routing.audience_from),
            readiness=process.readiness,
            instruments=process.instruments,
        )
    )


async def _reload(gateway: Gateway) -> None:
    await gateway.wait_until_ready()
    assert gateway.reloader is not None
    with contextlib.suppress(ReloadRefusedError):  # the reloader has logged it
        await gateway.reloader.reload()


async def _open_next_runtime(process: ProcessResources, number: int, config: GatewayConfig) -> Runtime:
    if config.demands_keys and config.oidc.issuer is None and not process.authenticator.required:
        await process.authenticator.require_usable_key()
    return await open_runtime(number, config, process, _step_logger(number))


def _step_logger(number: int) -> OnProgress:
    """Logs each step of a resource once, however often it reports that more of it is done."""
    logged: set[tuple[str, str]] = set()

    def log_step(name: str, step: Step) -> None:
        if (name, step.text) not in logged:
            logged.add((name, step.text))
            log.info("generation %d: %s: %s", number, name, step.text)

    return log_step


def _reconfigure_access(process: ProcessResources, runtime: Runtime) -> None:
    process.authenticator.reconfigure(runtime.config)


def _note_reload(process: ProcessResources, runtime: Runtime, reloaded: Reloaded | None) -> None:
    webhooks, gateway = process.webhooks, process.heartbeat.replica.name
    if reloaded is None:
        webhooks.announce(reload_refused_event(generation=runtime.number, gateway=gateway))
        return
    webhooks.reconfigure(runtime.webhooks)
    if reloaded.outcome is ReloadOutcome.RELOADED:
        webhooks.announce(reload_event(generation=runtime.number, gateway=gateway, changed=reloaded.changed))


async def _watch_when_loaded(
    process: ProcessResources, runtimes: Runtimes, loading: asyncio.Future[None]
) -> None:
    await asyncio.wait([loading])
    if process.readiness.missing:
        return  # loading failed, and whoever waits for it has the error
    await watch_clock(
        process.webhooks,
        store=process.store,
        active_edits=process.active_edits,
        proposals=lambda: runtimes.current.control_plane.proposals,
    )


async def _load_edits(process: ProcessResources, on_progress: OnProgress) -> None:
    def report(count: int) -> None:
        process.readiness.note("edits", f"{count:,} loaded")
        on_progress("edits", Step(f"{count:,} loaded"))

    total = await process.active_edits.load(report)
    # Announced before following: writers wait for this process from the announcement on, and the follower
    # catches up with everything that was committed before it.
    await process.heartbeat.start()
    process.follower.start()
    await process.follower.caught_up()
    process.readiness.done("edits")
    log.info("ready with %d edits", total)


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
