"""A circuit breaker: an upstream that fails again and again is left alone for a while.

Without it every request to a server that does not answer waits for its timeout, and holds a connection. After
Nygard, "Release It!".
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from typing_extensions import override

from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest, UpstreamResponse
from serac_gateway.errors import UpstreamError

log = logging.getLogger(__name__)

_ITS_OWN_FAULT = "not sendable"
"""The kind of an error that says nothing of the server."""


class BreakingUpstream(Upstream):
    """An upstream, left alone for `pause_s` after `failures` failures in a row; one request tries it then.

    A failure is a request for which no response came: whatever status a response has, the server lives.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        name: str,
        failures: int,
        pause_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over `upstream`, which `name` is for in logs and errors."""
        self._upstream = upstream
        self._name = name
        self._limit = failures
        self._pause_s = pause_s
        self._clock = clock
        self._failures = 0
        self._closed_until: float | None = None
        """None: requests pass."""
        self._is_tried = False

    @property
    def is_open(self) -> bool:
        """Whether requests are refused now."""
        return self._closed_until is not None

    @override
    def send(self, request: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamResponse]:
        """See `Upstream.send`."""
        return _Attempt(self, self._upstream.send(request))

    @override
    async def close(self) -> None:
        await self._upstream.close()

    def tries(self) -> bool:
        """Whether the request that begins now is the one that tries a server that was left alone."""
        if self._closed_until is None:
            return False
        wait_s = self._closed_until - self._clock()
        if wait_s > 0 or self._is_tried:
            raise UpstreamError(
                f"the upstream {self._name!r} gave no answer {self._failures} times in a row and is left"
                f" alone for {self._pause_s:g} s; try again then",
                # While another request tries the server, nobody knows how long that takes.
                details={"kind": "circuit open", "retry_after_s": max(1, math.ceil(wait_s))},
            )
        self._is_tried = True
        return True

    def failed(self, error: UpstreamError) -> None:
        """Note that no response came."""
        if (error.details or {}).get("kind") == _ITS_OWN_FAULT:
            return
        self._failures += 1
        if self._failures < self._limit:
            return
        if self._closed_until is None:
            log.error("upstream %s gave no answer %d times in a row: left alone", self._name, self._failures)
        self._closed_until = self._clock() + self._pause_s

    def gave_up(self) -> None:
        """Note that the request that tried the server ended without a response."""
        self._is_tried = False

    def answered(self) -> None:
        """Note that a response came."""
        if self._closed_until is not None:
            log.warning("upstream %s answers again", self._name)
        self._failures = 0
        self._closed_until = None
        self._is_tried = False


class _Attempt(AbstractAsyncContextManager[UpstreamResponse]):
    """A request of a `BreakingUpstream`. Not a generator: every request comes through here."""

    def __init__(
        self, breaker: BreakingUpstream, sending: AbstractAsyncContextManager[UpstreamResponse]
    ) -> None:
        self._breaker = breaker
        self._sending = sending

    @override
    async def __aenter__(self) -> UpstreamResponse:
        tries = self._breaker.tries()
        has_response = False
        try:
            response = await self._sending.__aenter__()
            has_response = True
        except UpstreamError as error:
            self._breaker.failed(error)
            raise
        finally:
            if tries and not has_response:
                self._breaker.gave_up()
        self._breaker.answered()
        return response

    @override
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._sending.__aexit__(kind, exc, traceback)
