"""Opens the upstreams that the configuration names, or starts the embedded base model."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from serac_gateway.config.model import GatewayConfig, UpstreamConfig, upstream_api_key_variable
from serac_gateway.data_plane.upstream.base import Upstream
from serac_gateway.data_plane.upstream.by_model import ByModelUpstream, Served
from serac_gateway.data_plane.upstream.circuit_breaker import BreakingUpstream
from serac_gateway.data_plane.upstream.embedded import EmbeddedUpstream, start_embedded_upstream
from serac_gateway.data_plane.upstream.http import HttpUpstream
from serac_gateway.models.loading import OnProgress
from serac_gateway.server.resources import PartsInUse, file_stamps


class OpenUpstream(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go."""

    upstream: Upstream
    """One, or several by model. Its parts are closed with the `PartsInUse` they were taken from."""
    url: str
    """Of the default one, up to and with /v1; also of the embedded one."""


async def open_upstream(
    config: GatewayConfig, parts: PartsInUse, on_progress: OnProgress = lambda part, text: None
) -> OpenUpstream:
    """The upstream or upstreams that are configured, taken from `parts`.

    Raises:
        ConfigError: One cannot be had.
    """
    others = [
        Served(models=one.models, upstream=await _http_upstream(one, name, parts))
        for name, one in config.upstreams.items()
    ]
    default: Upstream
    if config.upstream.url is not None:
        default, url = await _http_upstream(config.upstream, None, parts), config.upstream.url
    else:
        embedded = await _embedded_upstream(config.upstream, config.data_path, parts, on_progress)
        default, url = embedded, embedded.url
    return OpenUpstream(upstream=ByModelUpstream(default, others) if others else default, url=url)


async def _http_upstream(config: UpstreamConfig, name: str | None, parts: PartsInUse) -> Upstream:
    async def opened() -> Upstream:
        return BreakingUpstream(
            HttpUpstream(config, api_key=os.environ.get(upstream_api_key_variable(name)) or None),
            name=name or "upstream",
            failures=config.breaker_failures,
            pause_s=config.breaker_pause_s,
        )

    part = "upstream" if name is None else f"upstreams.{name}"
    return await parts.get(part, (config, file_stamps(config.ca_file)), opened, lambda one: one.close())


async def _embedded_upstream(
    config: UpstreamConfig, data_path: Path, parts: PartsInUse, on_progress: OnProgress
) -> EmbeddedUpstream:
    async def opened() -> EmbeddedUpstream:
        return await start_embedded_upstream(
            config=config,
            data_path=data_path,
            on_progress=lambda text: on_progress("base model", text),
        )

    return await parts.get("base model", config, opened, lambda one: one.close())
