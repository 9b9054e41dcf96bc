"""Who decides about probes: the gateway's own models in this process, or a running gateway over HTTP."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from serac_gateway.config.model import RoutingConfig
from serac_gateway.control_plane.importer import EditImport
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import EditDraft
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.base import EditIndex
from serac_gateway.errors import ConfigError, GatewayError
from serac_gateway.models.classifiers.base import ScopeClassifier
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.routing.router import EditRouter, RouteDecision
from serac_gateway.stores.memory.store import InMemoryEditStore
from training.benchmarks.base import Probe
from training.data.conversations import chat_messages, chat_query
from training.evaluation.remote_namespace import HttpNamespace

NAMESPACE = "evaluation"
_IMPORT_BATCH = 1_000


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate of a decision."""

    edit_id: str
    similarity: float
    scope_probability: float


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided about a probe."""

    edit_id: str | None = None
    """The edit that fired; None: none did."""
    candidates: tuple[Candidate, ...] = ()
    """Most probable first."""


class Decider(ABC):
    """Stores edits and decides about probes. An async context manager; what it stored is gone at its end."""

    @property
    @abstractmethod
    def about(self) -> Mapping[str, str]:
        """What decides, for the run's settings: nothing that differs between two equal runs."""

    @abstractmethod
    async def store(
        self, drafts: Sequence[EditDraft], on_progress: Callable[[int], None] = lambda count: None
    ) -> None:
        """Store edits and take them into force; `on_progress` gets their number so far.

        Raises:
            ConfigError: One was refused.
        """

    @abstractmethod
    async def decide(self, probes: Sequence[Probe]) -> list[Decision]:
        """A decision a probe, in order, each asked with its earlier turns."""

    @abstractmethod
    async def __aenter__(self) -> Decider:
        """Open what it needs."""

    @abstractmethod
    async def __aexit__(self, *exc_info: object) -> None:
        """Remove what it stored, and close."""


class InProcessDecider(Decider):
    """Encoder, index, classifier and router put together as app.py does, over the in-memory store."""

    def __init__(
        self,
        *,
        encoder: Encoder,
        classifier: ScopeClassifier,
        make_index: Callable[[], EditIndex],
        scope_threshold: float | None = None,
        threads: int = 1,
    ) -> None:
        """`threads` decide side by side."""
        self._namespace = NAMESPACE
        self._pool = ThreadPoolExecutor(threads)
        self._threads = threads
        store = InMemoryEditStore()
        self._live_edits = ActiveEdits(store=store, encoder=encoder, make_index=make_index)
        writer = EditWriter(store=store, encoder=encoder, active_edits=self._live_edits, pool=self._pool)
        self._import = EditImport(
            writer=writer, store=store, active_edits=self._live_edits, namespace=self._namespace
        )
        self.router = EditRouter(
            encoder=encoder,
            active_edits=self._live_edits,
            classifier=classifier,
            config=RoutingConfig(scope_threshold=scope_threshold),
        )
        threshold = classifier.scope_threshold if scope_threshold is None else scope_threshold
        self._about = {
            "decider": "in process",
            "encoder": encoder.fingerprint,
            "classifier": classifier.fingerprint,
            "scope_threshold": f"{threshold:.6f}",
        }

    @property
    def about(self) -> Mapping[str, str]:
        """Fingerprints and threshold."""
        return self._about

    async def __aenter__(self) -> InProcessDecider:
        """Nothing to open."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """End the threads."""
        self._pool.shutdown()

    async def store(
        self, drafts: Sequence[EditDraft], on_progress: Callable[[int], None] = lambda count: None
    ) -> None:
        """See `Decider.store`."""
        for start in range(0, len(drafts), _IMPORT_BATCH):
            batch = drafts[start : start + _IMPORT_BATCH]
            for outcome in await self._import.add(batch):
                if isinstance(outcome, GatewayError):
                    raise ConfigError(f"an edit of the benchmark was refused: {outcome}")
            on_progress(start + len(batch))

    async def decide(self, probes: Sequence[Probe]) -> list[Decision]:
        """See `Decider.decide`."""
        query_of_probe = [chat_query(probe.context, probe.text) for probe in probes]
        queries = [query for query in query_of_probe if query is not None]
        share = max(1, -(-len(queries) // self._threads))
        loop = asyncio.get_running_loop()
        batches = await asyncio.gather(
            *(
                loop.run_in_executor(
                    self._pool, self.router.decide, self._namespace, queries[start : start + share]
                )
                for start in range(0, len(queries), share)
            )
        )
        decided = iter([decision for batch in batches for decision in batch])
        return [Decision() if query is None else _decision(next(decided)) for query in query_of_probe]


class HttpDecider(Decider):
    """A running gateway: POST /serac/v1/edits:import and /scope in a namespace of its own, retired after.

    Needs the role edit.
    """

    def __init__(self, url: str) -> None:
        """`url` as http://host:port."""
        self._namespace = HttpNamespace(url)

    @property
    def about(self) -> Mapping[str, str]:
        """The URL."""
        return {"decider": self._namespace.url}

    async def __aenter__(self) -> HttpDecider:
        """Connect."""
        await self._namespace.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Retire every edit that was stored, and disconnect."""
        await self._namespace.__aexit__(*exc_info)

    async def store(
        self, drafts: Sequence[EditDraft], on_progress: Callable[[int], None] = lambda count: None
    ) -> None:
        """See `Decider.store`."""
        await self._namespace.store(drafts, on_progress)

    async def decide(self, probes: Sequence[Probe]) -> list[Decision]:
        """See `Decider.decide`."""
        queries = [
            {"messages": chat_messages(probe.context, probe.text)} if probe.context else probe.text
            for probe in probes
        ]
        client = self._namespace.client
        reply = (await client.call("POST", "/serac/v1/scope", body={"queries": queries})).json()
        return [_decision_from_json(decision) for decision in reply["decisions"]]


def _decision(decision: RouteDecision) -> Decision:
    return Decision(
        edit_id=decision.edit.id if decision.edit else None,
        candidates=tuple(
            Candidate(
                edit_id=candidate.edit.id,
                similarity=candidate.similarity,
                scope_probability=candidate.scope_probability,
            )
            for candidate in decision.candidates
        ),
    )


def _decision_from_json(decision: Mapping[str, Any]) -> Decision:
    return Decision(
        edit_id=decision["edit_id"] if decision["in_scope"] else None,
        candidates=tuple(
            Candidate(
                edit_id=candidate["edit_id"],
                similarity=candidate["similarity"],
                scope_probability=candidate["scope_probability"],
            )
            for candidate in decision["candidates"]
        ),
    )
