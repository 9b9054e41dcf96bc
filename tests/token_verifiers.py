"""Verifiers of tokens on a clock of the test's."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serac_gateway.auth.identity_provider import IdentityProvider
from serac_gateway.auth.tokens import TokenVerifier
from serac_gateway.config.model import OidcConfig


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def verifying(config: OidcConfig, clock: Clock | None = None) -> AsyncIterator[TokenVerifier]:
    keys = IdentityProvider(config, clock=clock or time.monotonic)
    try:
        yield TokenVerifier(config, keys)
    finally:
        await keys.close()
