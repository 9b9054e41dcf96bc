"""A request that goes to the upstream while the decision on it is still being made."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Literal

from typing_extensions import override

from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest, UpstreamResponse
from serac_gateway.observability.tracing import RequestTrace

_STEPS_TO_WRITE = 2
"""Of the event loop: the task of the request, and the one in which aiohttp writes it."""


class SpeculativeRequest(AbstractAsyncContextManager[UpstreamResponse]):
    """A request on its way to the upstream before anyone knows whether its reply will be used.

    It is either entered, and then behaves as `Upstream.send` does (errors, cancellation, cleanup), or
    canceled. Until then only the headers of the reply are read, so memory is bounded.
    """

    def __init__(self, upstream: Upstream, request: UpstreamRequest) -> None:
        """Send; `request.body` must be whole, for another version of it may have to be sent instead."""
        self.sent = time.perf_counter()
        """When it was sent, on the clock of `time.perf_counter`."""
        self.answered: float | None = None
        """When the upstream's headers arrived, on the same clock."""
        self._sending = upstream.send(request)
        self._opening = asyncio.create_task(self._open(), name="speculative-request")
        self._outcome: Literal["used", "called off"] | None = None

    @property
    def outcome(self) -> Literal["used", "called off"] | None:
        """Whether the reply was used or canceled; None: neither yet. The words are the metric's labels."""
        return self._outcome

    @override
    async def __aenter__(self) -> UpstreamResponse:
        self._outcome = "used"
        try:
            return await self._opening
        except asyncio.CancelledError:
            await self._end()  # the reply may have arrived at that very moment: nobody else would close it
            raise

    @override
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._sending.__aexit__(kind, exc, traceback)

    async def written(self) -> None:
        """Let the event loop write the request, if a connection is open, before work on other threads begins.

        A decision that began first would keep the loop waiting for the interpreter, for milliseconds.
        """
        for _ in range(_STEPS_TO_WRITE):
            await asyncio.sleep(0)

    async def cancel(self) -> None:
        """Close its connection, unless the whole reply has arrived; no effect once entered. Idempotent."""
        if self._outcome is None:
            self._outcome = "called off"
            await self._end()

    async def _open(self) -> UpstreamResponse:
        response = await self._sending.__aenter__()
        self.answered = time.perf_counter()
        return response

    async def _end(self) -> None:
        if not self._opening.done():
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if not self._opening.cancelled() and self._opening.exception() is None:
            await self._sending.__aexit__(None, None, None)


async def called_off(speculative: SpeculativeRequest | None, trace: RequestTrace) -> None:
    """Cancel a speculative request that was not used, and end its span: the next one is another request's."""
    if speculative is not None and speculative.outcome is None:
        await speculative.cancel()
        trace.upstream_canceled()
