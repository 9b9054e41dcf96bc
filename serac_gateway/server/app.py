"""Puts the gateway together and serves it.

No other module constructs what it uses but those that open parts for this one: lasting_parts.py what is there
from start to end, generation_opening.py what depends on the configuration, model_opening.py and
upstream_opening.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from litestar import Litestar

from serac_gateway.config.model import GatewayConfig
from serac_gateway.errors import ReloadRefusedError
from serac_gateway.models.loading import OnProgress
from serac_gateway.observability.gauges import Gauges, Sources
from serac_gateway.server.asgi import application
from serac_gateway.server.listener import serve_until_stopped
from serac_gateway.server.process import LastingParts, open_lasting_parts
from serac_gateway.server.reload import OnReloaded, ReadConfig, Reloader
from serac_gateway.server.runtime import Generation, Generations
from serac_gateway.server.wiring import open_generation
from serac_gateway.server.workers.host import workers_frontend

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_gateway(
    config: GatewayConfig,
    *,
    read_config: ReadConfig | None = None,
    on_progress: OnProgress = lambda part, text: None,
    on_reloaded: OnReloaded = lambda generation: None,
) -> AsyncIterator[Litestar]:
    """The whole gateway as an ASGI application, its parts closed in reverse order at the end.

    It serves when it is given; the stored edits may still be loading, which /health/ready tells and
    `wait_until_ready` waits for. Until then /v1 passes through and /serac/v1 answers 503. With `read_config`
    it can be reloaded, by `state.reloader`; `on_reloaded` is told of each new generation in force.

    Raises:
        ConfigError: A part cannot be had.
    """
    async with AsyncExitStack() as stack:
        lasting = await open_lasting_parts(config, stack, on_progress)
        yield await stack.enter_async_context(
            open_over(
                lasting, config, read_config=read_config, on_progress=on_progress, on_reloaded=on_reloaded
            )
        )


@asynccontextmanager
async def open_over(
    lasting: LastingParts,
    config: GatewayConfig,
    *,
    read_config: ReadConfig | None = None,
    on_progress: OnProgress = lambda part, text: None,
    on_reloaded: OnReloaded = lambda generation: None,
) -> AsyncIterator[Litestar]:
    """As `open_gateway`, over parts that are open already and stay open."""
    async with AsyncExitStack() as stack:
        generations = Generations(await open_generation(1, config, lasting, on_progress))
        stack.push_async_callback(generations.close)
        lasting.instruments.registry.register(_gauges(lasting, generations))
        app = application(
            generations.data_plane,
            readiness=lasting.readiness,
            authenticator=lasting.authenticator,
            instruments=lasting.instruments,
            max_control_body_bytes=config.server.max_control_body_bytes,
            lease=generations.lease_to,
        )
        app.state.generations = generations
        app.state.loop_guard = lasting.loop_guard
        if read_config is not None:
            app.state.reloader = Reloader(
                generations=generations,
                read_config=read_config,
                open_generation=lambda number, config: _open_next(number, config, lasting),
                instruments=lasting.instruments,
                on_reloaded=[lambda generation: _take_up(generation, app, lasting), on_reloaded],
            )
        app.state.loading = asyncio.ensure_future(_load_edits(app, lasting, on_progress))
        stack.push_async_callback(_cancel, app.state.loading)
        yield app


def serve(
    config: GatewayConfig,
    *,
    read_config: ReadConfig | None = None,
    on_progress: OnProgress = lambda part, text: None,
    on_ready: Callable[[str], None] = lambda url: None,
    on_reloaded: OnReloaded = lambda generation: None,
) -> None:
    """Serve until SIGINT or SIGTERM; running answers may finish within the drain limit.

    `on_ready` is told the gateway's URL once edits are decided on. With `read_config` SIGHUP and the API
    reload the configuration, and `on_reloaded` is told of each new generation in force.

    Raises:
        ConfigError: A part cannot be had, or the address is taken.
    """
    workers = config.server.workers
    serve_until_stopped(
        lambda: open_gateway(
            config, read_config=read_config, on_progress=on_progress, on_reloaded=on_reloaded
        ),
        config.server,
        when_ready=wait_until_ready,
        on_ready=on_ready,
        on_hangup=None if read_config is None else _reload,
        open_frontend=None if workers == 1 else partial(workers_frontend, count=workers),
    )


async def wait_until_ready(app: Litestar) -> None:
    """Return when the stored edits are loaded; raises what made the loading fail."""
    await asyncio.shield(app.state.loading)


def _gauges(lasting: LastingParts, generations: Generations) -> Gauges:
    return Gauges(
        Sources(
            generation=lambda: generations.current.number,
            models=lambda: generations.current.config.models,
            counts=lasting.counts,
            active_edits=lasting.active_edits,
            follower=lasting.follower,
            answers=lasting.answer_counts,
            decisions=lasting.decision_counts,
            readiness=lasting.readiness,
            instruments=lasting.instruments,
        )
    )


async def _reload(app: Litestar) -> None:
    await wait_until_ready(app)
    with contextlib.suppress(ReloadRefusedError):  # which is in the log
        await app.state.reloader.reload()


async def _open_next(number: int, config: GatewayConfig, lasting: LastingParts) -> Generation:
    if config.demands_keys and not lasting.authenticator.required:
        await lasting.authenticator.require_usable_key()
    return await open_generation(
        number, config, lasting, lambda part, text: log.info("generation %d: %s: %s", number, part, text)
    )


def _take_up(generation: Generation, app: Litestar, lasting: LastingParts) -> None:
    """Have what lasts go on under the configuration of `generation`, which is in force now."""
    app.state.control_plane = generation.control_plane
    lasting.authenticator.reconfigure(
        required=generation.config.demands_keys,
        outage_grace_s=generation.config.access.outage_grace_s,
    )


async def _load_edits(app: Litestar, lasting: LastingParts, on_progress: OnProgress) -> None:
    def report(count: int) -> None:
        lasting.readiness.note("edits", f"{count:,} loaded")
        on_progress("edits", f"{count:,} loaded")

    total = await lasting.active_edits.load(report)
    # Announced first: what is committed from now on is waited for, what was before is caught up with.
    await lasting.announcer.start()
    lasting.follower.start()
    await lasting.follower.caught_up()
    app.state.control_plane = app.state.generations.current.control_plane
    lasting.readiness.done("edits")
    log.info("ready with %d edits", total)


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
