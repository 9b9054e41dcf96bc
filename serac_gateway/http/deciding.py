"""Who decides on a request: the models of this process, or those of another (see workers/)."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from concurrent.futures import Executor
from enum import Enum, auto

from typing_extensions import override

from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.http.verdict import Verdict, decide
from serac_gateway.observability.counts import DecisionCounts
from serac_gateway.routing.router import EditRouter
from serac_gateway.stores.traffic_recorder import RecordedTraffic


class Concern(Enum):
    """Whether a namespace's requests have to be decided on."""

    NONE = auto()
    """It has no edits, and its traffic is not recorded."""
    SOME = auto()
    UNKNOWN = auto()
    """The stored edits are still being loaded."""


class Deciding(ABC):
    """Decides on requests. Belongs to one event loop."""

    @abstractmethod
    def concern(self, namespace: str) -> Concern:
        """Whether requests of the namespace have to be decided on. Costs next to nothing."""

    @abstractmethod
    async def decide(self, namespace: str, endpoint: Endpoint, body: bytes, sender: str) -> Verdict:
        """Where the request with this body goes; `sender` is by whom canaries go where it names no user.

        Raises:
            ModelUnavailableError: Encoder or classifier failed.
        """


class DecidingHere(Deciding):
    """Decides with the router of this process, on the threads of `pool`."""

    def __init__(
        self,
        *,
        router: EditRouter,
        pool: Executor,
        counts: DecisionCounts,
        traffic: RecordedTraffic | None = None,
    ) -> None:
        """Without `traffic` no query is recorded."""
        self._router = router
        self._pool = pool
        self._counts = counts
        self._traffic = traffic

    @override
    def concern(self, namespace: str) -> Concern:
        if not self._router.is_ready:
            return Concern.UNKNOWN
        recorded = self._traffic is not None and self._traffic.is_on(namespace)
        return Concern.SOME if recorded or self._router.has_edits(namespace) else Concern.NONE

    @override
    async def decide(self, namespace: str, endpoint: Endpoint, body: bytes, sender: str) -> Verdict:
        loop = asyncio.get_running_loop()
        self._counts.open += 1
        try:
            verdict = await loop.run_in_executor(
                self._pool, decide, self._router, namespace, endpoint, body, sender
            )
        finally:
            self._counts.open -= 1
        if self._traffic is not None and verdict.query is not None:
            self._traffic.note(namespace, verdict.query)
        return verdict
