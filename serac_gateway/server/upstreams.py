"""Opens the configured upstreams, or starts the embedded base model."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from serac_gateway.config.model import GatewayConfig, UpstreamConfig, upstream_api_key_variable
from serac_gateway.data_plane.upstream.allowed_requests import AllowedRequests
from serac_gateway.data_plane.upstream.base import Upstream
from serac_gateway.data_plane.upstream.by_model import ByModelUpstream, Served
from serac_gateway.data_plane.upstream.circuit_breaker import BreakingUpstream
from serac_gateway.data_plane.upstream.embedded import EmbeddedUpstream, start_embedded_upstream
from serac_gateway.data_plane.upstream.http import HttpUpstream
from serac_gateway.models.progress import OnProgress
from serac_gateway.server.resources import ResourceLease, file_stamps


class OpenUpstream(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go."""

    upstream: Upstream
    """A single upstream, or a choice of several by model. The resource lease closes them."""
    url: str
    """Base URL of the default upstream up to and with /v1, also of the embedded one."""


async def open_upstream(
    config: GatewayConfig, lease: ResourceLease, on_progress: OnProgress = lambda name, step: None
) -> OpenUpstream:
    """The configured upstream or upstreams, acquired through `lease`.

    Raises:
        ConfigError: An upstream cannot be opened as configured.
    """
    others = [
        Served(models=upstream.models, upstream=await _http_upstream(upstream, name, lease))
        for name, upstream in config.upstreams.items()
    ]
    default: Upstream
    if config.upstream.url is not None:
        default, url = await _http_upstream(config.upstream, None, lease), config.upstream.url
    else:
        embedded = await _embedded_upstream(config.upstream, config.data_path, lease, on_progress)
        default, url = embedded, embedded.url
    return OpenUpstream(upstream=ByModelUpstream(default, others) if others else default, url=url)


async def _http_upstream(config: UpstreamConfig, name: str | None, lease: ResourceLease) -> Upstream:
    async def open_it() -> Upstream:
        api_key = os.environ.get(upstream_api_key_variable(name)) or None
        upstream = BreakingUpstream(
            HttpUpstream(config, api_key=api_key),
            name=name or "upstream",
            failures=config.breaker_failures,
            pause_s=config.breaker_pause_s,
        )
        if api_key is None:
            return upstream
        return AllowedRequests(upstream, config.allowed_paths, key=f"{resource}.allowed_paths")

    resource = "upstream" if name is None else f"upstreams.{name}"
    key = (config, file_stamps(config.ca_file))
    return await lease.acquire(resource, key, open_it, lambda upstream: upstream.close())


async def _embedded_upstream(
    config: UpstreamConfig, data_path: Path, lease: ResourceLease, on_progress: OnProgress
) -> EmbeddedUpstream:
    async def open_it() -> EmbeddedUpstream:
        return await start_embedded_upstream(
            config=config,
            data_path=data_path,
            on_step=lambda step: on_progress("base model", step),
        )

    return await lease.acquire("base model", config, open_it, lambda upstream: upstream.close())
