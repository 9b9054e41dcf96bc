"""Previews an edit before it is stored: its conflicts, and the queries that it would capture.

The router that decides requests decides here too, over the edits in force together with the new one, so that
the preview accounts for the scopes of other edits. Nothing is stored.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

import msgspec
import numpy as np

from serac_gateway.config.model import ConflictPolicy
from serac_gateway.control_plane.conflicts import Conflict, ConflictFinder, to_supersede
from serac_gateway.control_plane.model_threads import SLICE_QUERIES, ModelThreads
from serac_gateway.control_plane.paraphrases import ParaphraseKind, paraphrases
from serac_gateway.control_plane.readings import PromptReading, read_prompt
from serac_gateway.domain.audiences import Caller, Labels, labels_within
from serac_gateway.domain.edits import (
    Edit,
    EditDraft,
    EditState,
    first_version,
    forms,
    forms_left_out,
    statement,
)
from serac_gateway.domain.queries import Query
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.overlay import ActiveEditsOverlay, as_if_live
from serac_gateway.errors import ContradictionError
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.routing.retrieval import merged, retrieval_texts
from serac_gateway.routing.router import EditRouter, Route, RouteDecision
from serac_gateway.stores.ports import RecordedQuery
from serac_gateway.stores.traffic_recorder import TrafficRecorder

MAX_NEAR_MISSES = 16
MAX_CAPTURED = 100
_NEAREST_EDITS = 32
_NEAREST_RECORDED = 256
"""Recorded queries that are decided on; the others are less like any form of the edit than these."""
_COMPARED_QUERIES = 16
"""Recorded queries that are compared with the edit in one go."""


class FormKind(StrEnum):
    """Where a form comes from."""

    PROMPT = "prompt"
    STATEMENT = "statement"
    """The prompt with the answer."""
    PARAPHRASE = "paraphrase"
    ALIAS = "alias"
    """Prompt or paraphrase by another name of the subject."""


class PreviewedForm(msgspec.Struct, frozen=True, kw_only=True):
    """A text under which the edit would be searched."""

    text: str
    kind: FormKind


class PreviewedQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A query, and what the edit would do to it."""

    query: Query
    captured: bool
    """Whether the edit would govern it."""
    route: Route
    scope_probability: float | None
    """P(in scope of the edit); None: it lies too far away to be read."""
    governed_by: str | None
    """Id of the stored edit that would govern; None: none would, or the previewed one."""
    paraphrase_kind: ParaphraseKind | None = None
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
    most_frequent: list[PreviewedQuery]
    """Those captured, most frequent first; at most `MAX_CAPTURED`."""


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What an edit would do."""

    scope_threshold: float
    """Of an edit of this kind."""
    policy: ConflictPolicy
    refused: bool
    """Whether it would be refused because of its conflicts."""
    superseded: list[str]
    """Ids of the edits that it would retire."""
    conflicts: list[Conflict]
    reading: PromptReading
    """How the prompt is read."""
    forms: list[PreviewedForm]
    forms_left_out: int
    """How many by other names there are none of; see `forms_left_out`."""
    generated: list[PreviewedQuery]
    """Paraphrases of the prompt, made by rules."""
    near_misses: list[PreviewedQuery]
    """Prompts of stored edits and recorded queries closest to the threshold on either side, closest first."""
    queries: list[PreviewedQuery]
    """Those given, in order."""
    traffic: TrafficPreview


class Previewer:
    """Previews edits. Runs models on `threads`, a slice at a time."""

    def __init__(
        self,
        *,
        router: EditRouter,
        active_edits: ActiveEdits,
        encoder: Encoder,
        conflicts: ConflictFinder,
        traffic: TrafficRecorder,
        threads: ModelThreads,
    ) -> None:
        self._router = router
        self._active_edits = active_edits
        self._encoder = encoder
        self._conflicts = conflicts
        self._traffic = traffic
        self._threads = threads

    async def preview(
        self,
        namespace: str,
        draft: EditDraft,
        queries: Sequence[Query] = (),
        *,
        labels: Labels | None = None,
    ) -> Preview:
        """What `draft` would do if it were stored and live, its window open.

        Queries but recorded ones are decided on as of a request with `labels`; None: with the first value of
        each label of the draft's audience. A draft with the id of a stored edit is taken for its next
        version.

        Raises:
            InvalidRequestError: The draft breaks a rule.
            ModelUnavailableError: Encoder or classifier failed, or the preview takes too long.
            StoreUnavailableError: The recorded traffic cannot be read.
        """
        async with self._threads.time_limit("the preview"):
            return await self._preview(namespace, draft, queries, labels)

    async def _preview(
        self, namespace: str, draft: EditDraft, queries: Sequence[Query], labels: Labels | None
    ) -> Preview:
        written = first_version(draft, namespace=namespace)
        caller = Caller(labels=labels_within(written.audience) if labels is None else dict(labels))
        edit = as_if_live(written)
        vectors_FD = await self._threads.run(lambda: self._encoder.encode(forms(edit)))
        going_live = msgspec.structs.replace(written, state=EditState.LIVE)
        conflicts = await self._threads.run(lambda: self._conflicts.find(namespace, going_live, vectors_FD))
        policy = self._conflicts.policy(namespace)
        superseded, refused = _superseded_or_refused(policy, going_live, conflicts)

        router = self._router.over(ActiveEditsOverlay(self._active_edits, edit, vectors_FD))
        generated = paraphrases(edit.prompt, edit.subject, edit.target_new)
        of_generated = await self._decided(
            router, edit, [Query(text=query.text) for query in generated], caller
        )
        near = await self._threads.run(lambda: self._nearest_edits(edit, vectors_FD))
        prompts = [Query(text=stored.prompt) for stored in near]
        of_prompts = await self._decided(router, edit, prompts, caller)
        of_prompts = [
            msgspec.structs.replace(preview, edit_id=stored.id)
            for preview, stored in zip(of_prompts, near, strict=True)
        ]
        recorded = Counter(await self._traffic.recent(namespace))
        nearest = await self._nearest_recorded(recorded, vectors_FD)
        of_traffic = [
            msgspec.structs.replace(preview, count=recorded[query])
            for query, preview in await self._decided_as_recorded(router, edit, nearest)
        ]
        captured = sorted(
            (preview for preview in of_traffic if preview.captured), key=lambda preview: -preview.count
        )
        threshold = self._router.thresholds.of(edit)
        return Preview(
            scope_threshold=threshold,
            policy=policy,
            refused=refused,
            superseded=superseded,
            conflicts=conflicts,
            reading=read_prompt(edit.prompt, edit.target_new),
            forms=[PreviewedForm(text=text, kind=_kind(edit, text)) for text in forms(edit)],
            forms_left_out=forms_left_out(edit),
            generated=[
                msgspec.structs.replace(preview, paraphrase_kind=query.form)
                for preview, query in zip(of_generated, generated, strict=True)
            ],
            near_misses=_closest((*of_prompts, *of_traffic), threshold),
            queries=await self._decided(router, edit, queries, caller),
            traffic=TrafficPreview(
                recording=self._traffic.is_on(namespace),
                queries=recorded.total(),
                captured=sum(preview.count for preview in captured),
                most_frequent=captured[:MAX_CAPTURED],
            ),
        )

    async def _decided(
        self, router: EditRouter, edit: Edit, queries: Sequence[Query], caller: Caller
    ) -> list[PreviewedQuery]:
        previews: list[PreviewedQuery] = []
        for start in range(0, len(queries), SLICE_QUERIES):
            batch = list(queries[start : start + SLICE_QUERIES])
            decisions = await self._threads.run(
                lambda batch=batch: router.decide(edit.namespace, batch, caller=caller)  # type: ignore[misc]
            )
            previews += [
                _previewed(edit, query, decision) for query, decision in zip(batch, decisions, strict=True)
            ]
        return previews

    async def _decided_as_recorded(
        self, router: EditRouter, edit: Edit, queries: Sequence[RecordedQuery]
    ) -> list[tuple[RecordedQuery, PreviewedQuery]]:
        """Each query as of a request with the labels that it came with, those with the same ones together."""
        by_labels: dict[tuple[tuple[str, str], ...], list[RecordedQuery]] = {}
        for query in queries:
            by_labels.setdefault(query.labels, []).append(query)
        decided: list[tuple[RecordedQuery, PreviewedQuery]] = []
        for labels, some in by_labels.items():
            previews = await self._decided(router, edit, some, Caller(labels=dict(labels)))
            decided += zip(some, previews, strict=True)
        return decided

    def _nearest_edits(self, edit: Edit, vectors_FD: Vectors) -> list[Edit]:
        rows = self._active_edits.candidates(
            edit.namespace, vectors_FD, _NEAREST_EDITS, wanted=lambda other: other.id != edit.id
        )
        return [neighbour.edit for neighbour in merged(rows, floor=-1.0, limit=_NEAREST_EDITS)][
            :_NEAREST_EDITS
        ]

    async def _nearest_recorded(
        self, recorded: Counter[RecordedQuery], vectors_FD: Vectors
    ) -> list[RecordedQuery]:
        """Of the recorded queries those most like the edit, each once."""
        queries, similarities = list(recorded), list[float]()
        for start in range(0, len(queries), _COMPARED_QUERIES):
            batch = queries[start : start + _COMPARED_QUERIES]
            similarities += await self._threads.run(
                lambda batch=batch: [self._similarity(query, vectors_FD) for query in batch]  # type: ignore[misc]
            )
        order = np.argsort([-similarity for similarity in similarities], kind="stable")[:_NEAREST_RECORDED]
        return [queries[place] for place in order if similarities[place] >= self._router.similarity_floor]

    def _similarity(self, query: Query, vectors_FD: Vectors) -> float:
        return float((self._encoder.encode(retrieval_texts(query)) @ vectors_FD.T).max())


def _kind(edit: Edit, form: str) -> FormKind:
    if form == edit.prompt:
        return FormKind.PROMPT
    if form in edit.paraphrases:
        return FormKind.PARAPHRASE
    return FormKind.STATEMENT if form == statement(edit) else FormKind.ALIAS


def _superseded_or_refused(
    policy: ConflictPolicy, edit: Edit, conflicts: Sequence[Conflict]
) -> tuple[list[str], bool]:
    try:
        return [other.id for other in to_supersede(policy, edit, conflicts)], False
    except ContradictionError:
        return [], True


def _previewed(edit: Edit, query: Query, decision: RouteDecision) -> PreviewedQuery:
    probabilities = {candidate.edit.id: candidate.scope_probability for candidate in decision.candidates}
    governs = None if decision.edit is None else decision.edit.id
    captured = edit.id in {each.id for each in decision.governing_edits}
    return PreviewedQuery(
        query=query,
        captured=captured,
        route=decision.route,
        scope_probability=probabilities.get(edit.id),
        governed_by=None if captured else governs,
    )


def _closest(previews: Sequence[PreviewedQuery], threshold: float) -> list[PreviewedQuery]:
    read = [
        (preview, preview.scope_probability) for preview in previews if preview.scope_probability is not None
    ]
    read.sort(key=lambda pair: abs(_logit(pair[1]) - _logit(threshold)))
    return [preview for preview, _ in read[:MAX_NEAR_MISSES]]


def _logit(probability: float) -> float:
    clipped = min(max(probability, 1e-9), 1 - 1e-9)
    return math.log(clipped / (1 - clipped))
