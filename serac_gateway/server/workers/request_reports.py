"""Reports the finished requests of a worker to the model process, which counts and logs them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from serac_gateway.errors import GatewayError
from serac_gateway.observability.request_record import FinishedRequest
from serac_gateway.server.workers.rpc_client import RpcClient
from serac_gateway.server.workers.rpc_messages import RequestReport

log = logging.getLogger(__name__)

_MAX_WAITING = 10_000
_MAX_BATCH = 256
_IN_FLIGHT_INTERVAL_S = 1.0


class RequestReporter:
    """Sends reports: at once, and together those of requests that end while a report is under way."""

    def __init__(self, client: RpcClient, *, worker: str, in_flight: Callable[[], int]) -> None:
        """`in_flight` returns the number of requests that have begun and not ended."""
        self._client = client
        self._worker = worker
        self._in_flight = in_flight
        self._reported_in_flight = 0
        self._waiting: list[FinishedRequest] = []
        self._sending: asyncio.Task[None] | None = None
        self._is_failing = False
        self._ticking = asyncio.create_task(self._tick())

    def add(self, request: FinishedRequest) -> None:
        """Report a request; dropped if 10,000 wait already because the model process does not answer."""
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.append(request)
            self._start_sending()

    async def close(self) -> None:
        """Send the reports that wait, and stop. Idempotent."""
        self._ticking.cancel()
        await asyncio.gather(self._ticking, return_exceptions=True)
        if self._sending is not None:
            await self._sending

    def _start_sending(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    async def _tick(self) -> None:
        """Report the number in flight now and then: long requests begin without another one's end."""
        while True:
            await asyncio.sleep(_IN_FLIGHT_INTERVAL_S)
            if self._waiting or self._in_flight() != self._reported_in_flight:
                self._start_sending()

    async def _send(self) -> None:
        while True:
            batch, in_flight = self._waiting[:_MAX_BATCH], self._in_flight()
            report = RequestReport(worker=self._worker, requests=batch, in_flight=in_flight)
            try:
                await self._client.call("/finished", report, type(None))
            except GatewayError as error:
                if not self._is_failing:
                    log.warning("%d finished requests are not counted yet: %s", len(batch), error.message)
                self._is_failing = True
                return  # the next request, or the next tick, tries again
            self._is_failing = False
            del self._waiting[: len(batch)]
            self._reported_in_flight = in_flight
            if not self._waiting:
                return
