"""What an edit would do, before it is stored: whom it contradicts, and which queries it would capture.

Decided by the router that decides requests, over the edits in force with the new one among them, so a preview
tells what would happen, other edits' claims included. Nothing is stored.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

import msgspec
import numpy as np

from serac_gateway.config.model import ConflictPolicy
from serac_gateway.control_plane.conflicts import Conflict, ConflictFinder, to_supersede
from serac_gateway.control_plane.paraphrases import ParaphraseKind, asked_otherwise
from serac_gateway.domain.edits import Edit, EditDraft, EditState, first_version, forms
from serac_gateway.domain.queries import Query
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.overlay import ActiveEditsOverlay, as_if_live
from serac_gateway.errors import ContradictionError
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.routing.retrieval import merged, retrieval_texts
from serac_gateway.routing.router import EditRouter, Route, RouteDecision
from serac_gateway.stores.traffic_recorder import RecordedTraffic

MAX_NEAR_MISSES = 16
MAX_CAPTURED_SHOWN = 100
_NEAREST_EDITS = 32
_NEAREST_RECORDED = 256
"""Recorded queries that are decided on; the others are less like any form of the edit than these."""
_BATCH = 16
"""Queries decided in one go: chat requests get their turn on the pool between two batches."""

_T = TypeVar("_T")


class Previewed(msgspec.Struct, frozen=True, kw_only=True):
    """A query, and what the edit would do to it."""

    query: Query
    captured: bool
    """Whether the edit would govern it."""
    route: Route
    scope_probability: float | None
    """P(in scope of the edit); None: it lies too far away to be read."""
    governed_by: str | None
    """Id of the stored edit that would govern; None: none would, or the previewed one."""
    asked_as: ParaphraseKind | None = None
    """Of a generated query."""
    edit_id: str | None = None
    """Of the prompt of a stored edit."""
    count: int = 1
    """How often it was recorded."""


class TrafficPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What of the recorded traffic the edit would capture."""

    recording: bool
    """Whether the namespace's queries are recorded."""
    queries: int
    """Recorded and not yet expired."""
    captured: int
    shown: list[Previewed]
    """Those captured, most frequent first; at most `MAX_CAPTURED_SHOWN`."""


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What an edit would do."""

    scope_threshold: float
    policy: ConflictPolicy
    refused: bool
    """Whether it would be refused because of its conflicts."""
    superseded: list[str]
    """Ids of the edits that it would retire."""
    conflicts: list[Conflict]
    generated: list[Previewed]
    """The prompt asked otherwise, by rules."""
    near_misses: list[Previewed]
    """Prompts of stored edits and recorded queries closest to the threshold on either side, closest first."""
    queries: list[Previewed]
    """Those given, in order."""
    traffic: TrafficPreview


class Previewer:
    """Previews edits. Async; what takes time runs on `pool`, in pieces."""

    def __init__(
        self,
        *,
        router: EditRouter,
        active_edits: ActiveEdits,
        encoder: Encoder,
        conflicts: ConflictFinder,
        traffic: RecordedTraffic,
        pool: Executor,
    ) -> None:
        self._router = router
        self._live_edits = active_edits
        self._encoder = encoder
        self._conflicts = conflicts
        self._traffic = traffic
        self._pool = pool

    async def preview(self, namespace: str, draft: EditDraft, queries: Sequence[Query] = ()) -> Preview:
        """What `draft` would do if it were stored and live, its window open.

        A draft with the id of a stored edit is taken for its next version.

        Raises:
            InvalidRequestError: The draft breaks a rule.
            ModelUnavailableError: Encoder or classifier failed.
            StoreUnavailableError: The recorded traffic cannot be read.
        """
        written = first_version(draft, namespace=namespace)
        edit = as_if_live(written)
        vectors_FD = await self._run(lambda: self._encoder.encode(forms(edit)))
        going_live = msgspec.structs.replace(written, state=EditState.LIVE)
        conflicts = await self._run(lambda: self._conflicts.find(going_live, vectors_FD))
        policy = self._conflicts.policy(namespace)
        superseded, refused = _settled(policy, going_live, conflicts)

        router = self._router.over(ActiveEditsOverlay(self._live_edits, edit, vectors_FD))
        generated = asked_otherwise(edit.prompt, edit.subject)
        asked = await self._asked(router, edit, [Query(text=one.text) for one in generated])
        near = await self._run(lambda: self._nearest_edits(edit, vectors_FD))
        prompts = await self._asked(router, edit, [Query(text=one.prompt) for one in near])
        prompts = [
            msgspec.structs.replace(one, edit_id=stored.id)
            for one, stored in zip(prompts, near, strict=True)
        ]  # fmt: skip
        recorded = Counter(await self._traffic.recent(namespace))
        traffic = await self._asked(router, edit, await self._nearest_recorded(recorded, vectors_FD))
        traffic = [msgspec.structs.replace(one, count=recorded[one.query]) for one in traffic]
        captured = sorted((one for one in traffic if one.captured), key=lambda one: -one.count)
        return Preview(
            scope_threshold=self._router.scope_threshold,
            policy=policy,
            refused=refused,
            superseded=superseded,
            conflicts=conflicts,
            generated=[
                msgspec.structs.replace(one, asked_as=query.form)
                for one, query in zip(asked, generated, strict=True)
            ],
            near_misses=_closest((*prompts, *traffic), self._router.scope_threshold),
            queries=await self._asked(router, edit, queries),
            traffic=TrafficPreview(
                recording=self._traffic.is_on(namespace),
                queries=recorded.total(),
                captured=sum(one.count for one in captured),
                shown=captured[:MAX_CAPTURED_SHOWN],
            ),
        )

    async def _asked(self, router: EditRouter, edit: Edit, queries: Sequence[Query]) -> list[Previewed]:
        asked: list[Previewed] = []
        for start in range(0, len(queries), _BATCH):
            batch = list(queries[start : start + _BATCH])
            decisions = await self._run(lambda batch=batch: router.decide(edit.namespace, batch))  # type: ignore[misc]
            asked += [
                _previewed(edit, query, decision) for query, decision in zip(batch, decisions, strict=True)
            ]
        return asked

    def _nearest_edits(self, edit: Edit, vectors_FD: Vectors) -> list[Edit]:
        rows = self._live_edits.candidates(
            edit.namespace, vectors_FD, _NEAREST_EDITS, wanted=lambda other: other.id != edit.id
        )
        return [one.edit for one in merged(rows, floor=-1.0, limit=_NEAREST_EDITS)][:_NEAREST_EDITS]

    async def _nearest_recorded(self, recorded: Counter[Query], vectors_FD: Vectors) -> list[Query]:
        """Of the recorded queries those most like the edit, each once."""
        queries, similarities = list(recorded), list[float]()
        for start in range(0, len(queries), _BATCH):
            batch = queries[start : start + _BATCH]
            similarities += await self._run(
                lambda batch=batch: [self._similarity(one, vectors_FD) for one in batch]  # type: ignore[misc]
            )
        order = np.argsort([-one for one in similarities], kind="stable")[:_NEAREST_RECORDED]
        return [queries[place] for place in order if similarities[place] >= self._router.similarity_floor]

    def _similarity(self, query: Query, vectors_FD: Vectors) -> float:
        return float((self._encoder.encode(retrieval_texts(query)) @ vectors_FD.T).max())

    async def _run(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)


def _settled(policy: ConflictPolicy, edit: Edit, conflicts: Sequence[Conflict]) -> tuple[list[str], bool]:
    try:
        return [one.id for one in to_supersede(policy, edit, conflicts)], False
    except ContradictionError:
        return [], True


def _previewed(edit: Edit, query: Query, decision: RouteDecision) -> Previewed:
    own = next((one.scope_probability for one in decision.candidates if one.edit.id == edit.id), None)
    governs = None if decision.edit is None else decision.edit.id
    captured = governs == edit.id
    return Previewed(
        query=query,
        captured=captured,
        route=decision.route,
        scope_probability=own,
        governed_by=None if captured else governs,
    )


def _closest(asked: Sequence[Previewed], threshold: float) -> list[Previewed]:
    read = [(one, one.scope_probability) for one in asked if one.scope_probability is not None]
    read.sort(key=lambda pair: abs(_logit(pair[1]) - _logit(threshold)))
    return [one for one, _ in read[:MAX_NEAR_MISSES]]


def _logit(probability: float) -> float:
    clipped = min(max(probability, 1e-9), 1 - 1e-9)
    return math.log(clipped / (1 - clipped))
