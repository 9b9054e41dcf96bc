"""How well and how fast contradicting edits are found among many."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from serac_gateway.config.model import RoutingConfig
from serac_gateway.control_plane.conflicts import ConflictFinder
from serac_gateway.domain.edits import DEFAULT_NAMESPACE, Edit, EditDraft, first_version, forms
from serac_gateway.domain.queries import Query
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.routing.router import EditRouter
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import FormVectors, StoredEdit
from training.benchmarks.base import Benchmark, Case
from training.evaluation.gateway_models import GatewayModels
from training.evaluation.rates import median, percentile
from training.evaluation.scope.latency import Spread
from training.evaluation.terminal import OnProgress, silent

ANSWER = "Quentin Zork"
"""Where no other edit of the relation has another answer. No published row has it."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_MAX_WORDS = 20
_BATCH = 200


_Coming = tuple[Edit, str | None]
"""An edit that comes, and the id of the stored one that is to be found; None: any."""


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found for edits of one kind."""

    kind: str
    right: str
    """What should be found."""
    edits: int
    detected: int = msgspec.field(name="found")
    """For how many of them that conflict, or any, was found."""
    encode: Spread
    """The edit's forms, which a write encodes anyway."""
    look: Spread
    decide: Spread
    """A decision about the edit's prompt, to compare with."""


async def measure(
    models: GatewayModels, *, stored: Benchmark, count: int, seed: int, on_progress: OnProgress = silent
) -> list[Looked]:
    """Store the edits of `stored` and look for conflicts of `count` more of each kind."""
    active_edits = ActiveEdits(
        store=InMemoryEditStore(), encoder=models.encoder, make_index=models.make_index
    )
    cases = stored.cases
    for start in range(0, len(cases), _BATCH):
        batch = [_stored(models, case) for case in cases[start : start + _BATCH]]
        await active_edits.apply(DEFAULT_NAMESPACE, batch)
        on_progress("storing edits", min(start + _BATCH, len(cases)), len(cases))
    finder = ConflictFinder(
        active_edits=active_edits,
        encoder=models.encoder,
        classifier=models.classifier,
        config=RoutingConfig(),
    )
    router = EditRouter(encoder=models.encoder, active_edits=active_edits, classifier=models.classifier)
    results = []
    for kind, right, coming in _kinds(cases, count, random.Random(seed)):
        looked = await asyncio.to_thread(_looked, models, finder, router, kind, right, coming)
        results.append(looked)
        on_progress("looking", len(results), 4)
    return results


def rows(results: Sequence[Looked]) -> list[tuple[str, ...]]:
    """The table, its head first; times as median / 95th percentile."""
    head = ("edits that come", "found", "should be", "encode ms", "look ms", "decide ms")
    return [head] + [
        (
            f"{result.kind}, {result.edits}",
            str(result.detected),
            result.right,
            *(f"{s.median_ms:.1f} / {s.p95_ms:.1f}" for s in (result.encode, result.look, result.decide)),
        )
        for result in results
    ]


def _kinds(cases: Sequence[Case], count: int, draw: random.Random) -> list[tuple[str, str, list[_Coming]]]:
    """For each kind its name, what should be found, and the edits that come."""
    prompts = {case.edit.prompt for case in cases}
    answers: defaultdict[str | None, set[str]] = defaultdict(set)
    for case in cases:
        answers[case.relation].add(case.edit.target_new)

    def other_answer(case: Case) -> str:
        """One that another edit of the relation has, so that it is of the right kind."""
        others = sorted(answers[case.relation] - {case.edit.target_new}) if case.relation else []
        return draw.choice(others) if others else ANSWER

    drawn = draw.sample(list(cases), min(count, len(cases)))
    rephrased: list[_Coming] = [
        (_edit(text, other_answer(case)), case.id)
        for case in drawn
        for text in [_last_sentence(probe.text) for probe in case.probes if probe.kind == "rephrase"][:1]
        if len(text.split()) <= _MAX_WORDS
    ]
    neighbours: list[_Coming] = [
        (_edit(text, other_answer(case)), None)
        for case in drawn
        for text in [probe.text for probe in case.probes if not probe.in_scope and not probe.contested][:1]
        if text not in prompts
    ]
    return [
        (
            "same prompt, other answer",
            "all",
            [(_edit(case.edit.prompt, other_answer(case)), case.id) for case in drawn],
        ),
        ("prompt in other words, other answer", "all", rephrased),
        (
            "same prompt, same answer",
            "none",
            [(_edit(case.edit.prompt, case.edit.target_new), None) for case in drawn],
        ),
        ("prompt about another subject", "none", neighbours),
    ]


def _looked(
    models: GatewayModels,
    finder: ConflictFinder,
    router: EditRouter,
    kind: str,
    right: str,
    coming: Sequence[_Coming],
) -> Looked:
    encode, look, decide, detected = list[float](), list[float](), list[float](), 0
    for edit, wanted in coming:
        marks = [time.perf_counter()]
        vectors_FD = models.encoder.encode(forms(edit))
        marks.append(time.perf_counter())
        conflicts = finder.find(edit.namespace, edit, vectors_FD)
        marks.append(time.perf_counter())
        router.decide(edit.namespace, [Query(text=edit.prompt)])
        marks.append(time.perf_counter())
        for times, begun, ended in zip((encode, look, decide), marks, marks[1:], strict=False):
            times.append((ended - begun) * 1_000)
        detected += any(wanted in (None, conflict.edit.id) for conflict in conflicts)
    return Looked(
        kind=kind,
        right=right,
        edits=len(coming),
        detected=detected,
        encode=_spread(encode),
        look=_spread(look),
        decide=_spread(decide),
    )


def _spread(times_ms: Sequence[float]) -> Spread:
    return Spread(queries=len(times_ms), median_ms=median(times_ms), p95_ms=percentile(times_ms, 95))


def _last_sentence(text: str) -> str:
    """What asks: CounterFact puts a sentence of noise before its clozes, which no editor writes."""
    return _SENTENCE_END.split(text.strip())[-1]


def _edit(prompt: str, target_new: str) -> Edit:
    return first_version(EditDraft(prompt=prompt, target_new=target_new), namespace=DEFAULT_NAMESPACE)


def _stored(models: GatewayModels, case: Case) -> StoredEdit:
    edit = first_version(case.edit, namespace=DEFAULT_NAMESPACE)
    vectors_FD = models.encoder.encode(forms(edit))
    vectors = FormVectors(fingerprint=models.encoder.fingerprint, vectors_FD=vectors_FD)
    return StoredEdit(edit=edit, vectors=vectors)
