"""`serac bench decision` and `serac bench answer`: what a gateway that runs takes to decide and to answer."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import msgspec

from serac_gateway.cli.bench import workload as material
from serac_gateway.cli.bench.load import Latencies, Request, Saturated, in_turns, saturated
from serac_gateway.cli.bench.wire import Target


class AnswerResult(msgspec.Struct, frozen=True, kw_only=True):
    """In-scope questions that the counterfactual model answers."""

    edits: int
    first_byte: Latencies
    whole: Latencies
    gap_median_ms: float | None
    """Between two pieces of a streamed answer; None if every answer came in one piece."""
    side_by_side: Saturated
    """Four clients at once."""


class DecisionResult(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions by POST /serac/v1/scope, one query a call, one client."""

    edits: int
    everyday: Latencies
    """Questions that are like no edit."""
    near: Latencies
    """Questions about what edits are about, which the cross-encoder has to read."""
    nothing: Latencies
    """Calls without a query: what HTTP itself takes, in the two above as well."""


async def decisions(target: Target, *, edits: int, count: int) -> DecisionResult:
    """Ask for decisions.

    Raises:
        BenchError: The gateway does not answer with 200.
    """
    near = [edit["prompt"].rstrip("?") + " in the old days?" for edit in material.edits(min(edits, 500))]
    everyday = material.everyday_questions()

    def asking(queries: Sequence[str]) -> Request:
        return lambda number: target.post(
            "/serac/v1/scope", {"queries": [queries[number % len(queries)]] if queries else []}
        )

    rows = await in_turns([target] * 3, [asking(everyday), asking(near), asking([])], count)
    of = [Latencies.of([reply.latency_ms for reply in row]) for row in rows]
    return DecisionResult(edits=edits, everyday=of[0], near=of[1], nothing=of[2])


async def answers(
    target: Target, edits: Sequence[Mapping[str, str]], *, count: int, seconds: float
) -> AnswerResult:
    """Ask for what `edits`, which are stored, say.

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
    )
