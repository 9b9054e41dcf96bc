"""How long a decision takes, one query at a time as requests come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from serac_gateway.domain.queries import Query
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.routing.router import EditRouter
from training.benchmarks.base import Benchmark, Probe
from training.evaluation.gateway_models import GatewayModels
from training.evaluation.rates import median, percentile
from training.evaluation.scope.deciders import NAMESPACE, InProcessDecider
from training.evaluation.terminal import OnProgress, silent

_WARM_UP = 20
_MAX_WORDS = 20
"""Longer queries are left out: up to here a query has at most about 32 tokens."""


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution of times."""

    queries: int
    median_ms: float
    p95_ms: float


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """Times of decisions of one kind."""

    whole: Spread
    encode: Spread
    search: Spread
    classify: Spread
    mean_candidates: float


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    edits: int
    classifier: str
    encoder_texts_per_s: float
    """One thread, one text at a time."""
    encoder_texts_per_s_two_threads: float
    without_candidate: Decided | None
    """None: every query had a candidate, as with a classifier without a floor."""
    with_candidate: Decided | None


def queries_of(edits: Benchmark, traffic: Sequence[Probe], *, count: int) -> list[str]:
    """`count` short texts of unrelated traffic, and as many rephrased prompts of the edits."""
    groups = (
        [probe.text for probe in traffic if not probe.context],
        [probe.text for case in edits.cases for probe in case.probes if probe.kind == "rephrase"],
    )
    return [
        text
        for texts in groups
        for text in [text for text in texts if len(text.split()) <= _MAX_WORDS][:count]
    ]


async def measure(
    models: GatewayModels, *, stored: Benchmark, texts: Sequence[str], on_progress: OnProgress = silent
) -> Latency:
    """Store the edits of `stored` and time a decision about each text."""
    async with InProcessDecider(
        encoder=models.encoder, classifier=models.classifier, make_index=models.make_index
    ) as decider:
        await decider.store(
            [case.edit for case in stored.cases],
            lambda count: on_progress("storing edits", count, len(stored.cases)),
        )
        timed = _timed(decider.router, texts, on_progress)
        return Latency(
            edits=len(stored.cases),
            classifier=models.classifier.fingerprint,
            encoder_texts_per_s=_encoder_rate(models.encoder, texts, threads=1),
            encoder_texts_per_s_two_threads=_encoder_rate(models.encoder, texts, threads=2),
            without_candidate=_decided([decision for decision in timed if not decision.candidates]),
            with_candidate=_decided([decision for decision in timed if decision.candidates]),
        )


def rows(measured: Latency) -> list[tuple[str, ...]]:
    """The table, its head first."""
    table: list[tuple[str, ...]] = [("what", "queries", "median ms", "95th percentile ms")]
    for name, decided in (
        ("no candidate", measured.without_candidate),
        ("candidates", measured.with_candidate),
    ):
        if decided is None:
            continue
        for part in ("whole", "encode", "search", "classify"):
            spread: Spread = getattr(decided, part)
            table.append(
                (f"{name}: {part}", str(spread.queries), f"{spread.median_ms:.2f}", f"{spread.p95_ms:.2f}")
            )
        table.append((f"{name}: candidates, mean", "", f"{decided.mean_candidates:.1f}", ""))
    table.append(("encoder alone, texts/s, one thread", "", f"{measured.encoder_texts_per_s:.0f}", ""))
    table.append(
        ("encoder alone, texts/s, two threads", "", f"{measured.encoder_texts_per_s_two_threads:.0f}", "")
    )
    table.append((f"edits in the store; {measured.classifier}", f"{measured.edits:,}", "", ""))
    return table


class _Timed(msgspec.Struct, frozen=True, kw_only=True):
    whole: float
    encode: float
    search: float
    classify: float
    candidates: int


def _timed(router: EditRouter, texts: Sequence[str], on_progress: OnProgress) -> list[_Timed]:
    for text in texts[:_WARM_UP]:
        router.decide(NAMESPACE, [Query(text=text)])
    timed = []
    for done, text in enumerate(texts):
        begun = time.perf_counter()
        (decision,) = router.decide(NAMESPACE, [Query(text=text)])
        timed.append(
            _Timed(
                whole=(time.perf_counter() - begun) * 1_000,
                encode=decision.timings.encode_s * 1_000,
                search=decision.timings.search_s * 1_000,
                classify=decision.timings.classify_s * 1_000,
                candidates=len(decision.candidates),
            )
        )
        on_progress("deciding", done + 1, len(texts))
    return timed


def _decided(timed: Sequence[_Timed]) -> Decided | None:
    if not timed:
        return None

    def spread(part: str) -> Spread:
        values = [getattr(decision, part) for decision in timed]
        return Spread(queries=len(values), median_ms=median(values), p95_ms=percentile(values, 95))

    return Decided(
        whole=spread("whole"),
        encode=spread("encode"),
        search=spread("search"),
        classify=spread("classify"),
        mean_candidates=sum(decision.candidates for decision in timed) / len(timed),
    )


def _encoder_rate(encoder: Encoder, texts: Sequence[str], *, threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        begun = time.perf_counter()
        list(pool.map(lambda text: encoder.encode([text]), texts))
        return len(texts) / (time.perf_counter() - begun)
