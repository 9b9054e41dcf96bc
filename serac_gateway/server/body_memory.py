"""Where the server keeps account of the memory of request bodies (domain/body_budget.py)."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from litestar.types import Receive, Scope, Send

from serac_gateway.config.model import ServerConfig
from serac_gateway.domain.body_budget import held_body

log = logging.getLogger(__name__)

_LOG_INTERVAL_S = 10.0

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class BodyMemoryLog:
    """Logs that bodies were given up, one line for all of an interval."""

    def __init__(self, limits: ServerConfig) -> None:
        self._limit_bytes = limits.max_body_memory_bytes
        self._logged_s = -_LOG_INTERVAL_S
        self._count = 0

    def __call__(self) -> None:
        """Count a body, and log if it is time."""
        self._count += 1
        now_s = time.monotonic()
        if now_s - self._logged_s < _LOG_INTERVAL_S:
            return
        log.warning(
            "the bodies of requests take up more than %d bytes: %d were refused, the largest that were still"
            " arriving first; if clients need more, raise server.max_body_memory_bytes",
            self._limit_bytes,
            self._count,
        )
        self._logged_s, self._count = now_s, 0


def closing_accounts(app: Asgi) -> Asgi:
    """`app`; the account of a request's body is closed when its work has ended."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        finally:
            held_body(scope).release()

    return application
