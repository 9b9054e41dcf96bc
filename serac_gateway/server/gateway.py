"""The record of an open gateway, which `app.open_gateway` yields."""

from __future__ import annotations

import asyncio

import msgspec

from serac_gateway.server.asgi import GatewayApp
from serac_gateway.server.process import ProcessResources
from serac_gateway.server.reload import Reloader
from serac_gateway.server.runtime import Runtimes


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """An open gateway: the application to serve, and the objects that tests, workers and signals need."""

    app: GatewayApp
    """The ASGI application. It serves while stored edits are still being loaded: /v1 holds the requests that
    need them, and /serac/v1 answers 503."""
    process: ProcessResources
    """Store, authenticator, encoder, edit index, readiness, counts: open from start to end."""
    runtimes: Runtimes
    """The runtime of the current configuration, and earlier ones that still serve requests."""
    reloader: Reloader | None
    """None where the configuration cannot be read again."""
    loading: asyncio.Future[None]
    """Loads the stored edits; done when `process.readiness` misses nothing."""

    async def wait_until_ready(self) -> None:
        """Return when the stored edits are loaded; raises whatever ended the loading."""
        await asyncio.shield(self.loading)
