"""`serac bench decision` and `serac bench answer`: times of decisions and answers of a running gateway."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import msgspec

from serac_gateway.cli.bench import workload
from serac_gateway.cli.bench.at_once import AtOnce, at_once
from serac_gateway.cli.bench.load import Latencies, Request, Saturated, in_turns, saturated
from serac_gateway.cli.bench.wire import Target

_ROUNDS = 5


class AnswerResult(msgspec.Struct, frozen=True, kw_only=True):
    """Times of in-scope questions, which the counterfactual model answers."""

    edits: int
    first_byte: Latencies
    whole: Latencies
    gap_median_ms: float | None
    """Between two events of a streamed answer; None if every answer came in one event."""
    side_by_side: Saturated
    """Four clients at once, one request after the other."""
    together: AtOnce
    """Eight clients at the same moment."""
    crowd: AtOnce
    """Fifty."""


class DecisionResult(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions by POST /serac/v1/scope, one query a call, one client."""

    edits: int
    everyday: Latencies
    """Questions similar to no edit."""
    near: Latencies
    """Questions about the subjects of edits, which the cross-encoder must classify."""
    nothing: Latencies
    """Calls without a query: the share of HTTP itself in the two above."""


async def decisions(target: Target, *, edits: int, count: int) -> DecisionResult:
    """Measure decisions.

    Raises:
        BenchError: The gateway does not answer with 200.
    """
    near = [edit["prompt"].rstrip("?") + " in the old days?" for edit in workload.edits(min(edits, 500))]
    everyday = workload.everyday_questions()

    def deciding(queries: Sequence[str]) -> Request:
        return lambda number: target.post(
            "/serac/v1/scope", {"queries": [queries[number % len(queries)]] if queries else []}
        )

    rows = await in_turns([target] * 3, [deciding(everyday), deciding(near), deciding([])], count)
    everyday_ms, near_ms, nothing_ms = (Latencies.of([reply.latency_ms for reply in row]) for row in rows)
    return DecisionResult(edits=edits, everyday=everyday_ms, near=near_ms, nothing=nothing_ms)


async def answers(
    target: Target, edits: Sequence[Mapping[str, str]], *, count: int, seconds: float
) -> AnswerResult:
    """Measure answers to the prompts of `edits`, which must be stored.

    Raises:
        BenchError: The gateway does not answer with 200.
    """
    prompts = [edit["prompt"] for edit in edits]

    def whole(number: int) -> bytes:
        return target.chat(prompts[number % len(prompts)])

    def streamed(number: int) -> bytes:
        return target.chat(prompts[number % len(prompts)], stream=True)

    replies, streams = await in_turns([target, target], [whole, streamed], count, warm_up=5)
    gaps = [
        (later - earlier) * 1_000
        for reply in streams
        for earlier, later in itertools.pairwise(reply.arrivals_s)
        if later > earlier
    ]
    return AnswerResult(
        edits=len(edits),
        first_byte=Latencies.of([reply.first_byte_ms for reply in streams]),
        whole=Latencies.of([reply.latency_ms for reply in replies]),
        gap_median_ms=sorted(gaps)[len(gaps) // 2] if gaps else None,
        side_by_side=await saturated(target, whole, connections=4, seconds=seconds),
        together=await at_once(target, streamed, clients=8, rounds=_ROUNDS),
        crowd=await at_once(target, streamed, clients=50, rounds=1),
    )
