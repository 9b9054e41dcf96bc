"""Records requests in the scope of canaries for the comparison of both arms. It delays and fails none."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from serac_gateway.domain.queries import Query
from serac_gateway.domain.trials import Outcome, Trial, TrialObservation
from serac_gateway.errors import GatewayError
from serac_gateway.observability.request_record import FinishedRequest
from serac_gateway.stores.traffic_recorder import TrafficRecorder
from serac_gateway.stores.trials import TrialStore

log = logging.getLogger(__name__)

MAX_WAITING = 1_000
_PAUSE_S = 0.5
_MAX_TEXT_CHARS = 4_000


class _Waiting(NamedTuple):
    namespace: str
    trial: Trial
    observation: TrialObservation


class TrialRecorder:
    """Writes in batches. Belongs to one event loop; `close` writes what waits."""

    def __init__(
        self,
        store: TrialStore,
        traffic: TrafficRecorder,
        *,
        is_current: Callable[[str, Trial], bool] = lambda namespace, trial: True,
        pause_s: float = _PAUSE_S,
    ) -> None:
        """Texts are kept, redacted, where `traffic` records the namespace.

        `is_current(namespace, trial)`: whether that version of the edit is still in force; of others no texts
        are kept, so that none comes after a purge.
        """
        self._store = store
        self._traffic = traffic
        self._is_current = is_current
        self._pause_s = pause_s
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None
        self.dropped = 0
        """Requests that came faster than they could be recorded."""

    def add(self, request: FinishedRequest) -> None:
        """An observer for the data plane."""
        if request.trial is None or request.namespace is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append(
            _Waiting(request.namespace, request.trial, self._observation(request, request.trial))
        )
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write_soon())

    async def close(self) -> None:
        """Write what waits, and stop. Idempotent."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
            self._writing = None
        await self._write()

    def _observation(self, request: FinishedRequest, trial: Trial) -> TrialObservation:
        recorded = self._traffic.is_on(request.namespace or "")
        outcome = Outcome.ANSWERED
        if request.client_left:
            outcome = Outcome.LEFT
        elif request.status is None or request.status >= 400:
            outcome = Outcome.FAILED
        return TrialObservation(
            arm=trial.arm,
            caller=trial.caller,
            outcome=outcome,
            total_ms=request.total_s * 1_000,
            at=datetime.now(UTC),
            query=request.query.text[:_MAX_TEXT_CHARS] if recorded and request.query is not None else None,
            answer=request.answer if recorded else None,
        )

    async def _write_soon(self) -> None:
        await asyncio.sleep(self._pause_s)
        while self._waiting:
            await self._write()

    async def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        batches: defaultdict[tuple[str, str, int], list[TrialObservation]] = defaultdict(list)
        for namespace, trial, observation in waiting:
            if observation.answer is not None or observation.query is not None:
                # On a thread: patterns can take their time on a long text.
                observation = await asyncio.to_thread(self._redacted, observation)
                if not self._is_current(namespace, trial):
                    observation = _without_texts(observation)
            batches[namespace, trial.edit_id, trial.edit_version].append(observation)
        for (namespace, edit_id, version), observations in batches.items():
            try:
                await self._store.add(
                    namespace, edit_id, version, observations, answers_ttl_s=self._traffic.ttl_s
                )
            except GatewayError as error:
                self.dropped += len(observations)
                log.warning("requests of the canary %s were not recorded: %s", edit_id, error.message)

    def _redacted(self, observation: TrialObservation) -> TrialObservation:
        return _with_texts(
            observation,
            *(
                None if text is None else self._traffic.redacted(Query(text=text)).text[:_MAX_TEXT_CHARS]
                for text in (observation.query, observation.answer)
            ),
        )


def _without_texts(observation: TrialObservation) -> TrialObservation:
    return _with_texts(observation, None, None)


def _with_texts(observation: TrialObservation, query: str | None, answer: str | None) -> TrialObservation:
    return TrialObservation(
        arm=observation.arm,
        caller=observation.caller,
        outcome=observation.outcome,
        total_ms=observation.total_ms,
        at=observation.at,
        query=query,
        answer=answer,
    )
