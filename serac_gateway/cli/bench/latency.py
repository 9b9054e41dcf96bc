"""Times that `serac bench proxy` measures: the same requests to the mock, the gateway and a peer.

All requests are sent in one run and in turns, because the load of a shared machine differs between runs.
Ratios are comparable between runs, absolute numbers are not. For memory see memory.py, for overload
overload.py.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from serac_gateway.cli.bench.contenders import Contender
from serac_gateway.cli.bench.load import Latencies, OpenLoop, Saturated, in_turns, open_loop, saturated
from serac_gateway.cli.bench.wire import Reply, Target

_AT_A_TURN = 200
"""Requests of a contender's turn. Only the first meets the caches of other contenders; no p99 shows it."""
_STEADY_SHARE = 0.5


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """A contender's latency above the mock's own; one client, in turns."""

    name: str
    latencies: Latencies
    added_median_ms: float
    """Its median minus the mock's."""
    added_p99_ms: float
    """Its 99th percentile minus the mock's."""


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """The request rate of a contender."""

    name: str
    saturated: Saturated
    per_cpu_second: float | None
    """Requests for each CPU second of the contender's processes: its rate per core."""
    steady: OpenLoop
    """Load at half of that rate, without waiting for earlier replies."""


class Streaming(msgspec.Struct, frozen=True, kw_only=True):
    """A contender's delays in a stream of server-sent events, above the mock's own."""

    name: str
    first_byte: Latencies
    added_first_byte_median_ms: float
    gap_median_ms: float
    """Between two events."""
    added_gap_median_ms: float
    added_way_median_ms: float | None
    """Added time of an event from the mock to the client; None: the contender drops the mock's stamps."""


class FirstToken(msgspec.Struct, frozen=True, kw_only=True):
    """The time to the first token of a stream with a slow upstream."""

    name: str
    first_byte: Latencies
    added_median_ms: float


async def added_latency(
    contenders: Sequence[Contender], request: Callable[[Target, int], bytes], *, count: int
) -> list[Added]:
    """Measure latencies; the first contender is the mock itself."""
    replies = await _replies_in_turns(contenders, request, count, at_a_turn=_AT_A_TURN)
    latencies = [[reply.latency_ms for reply in row] for row in replies]
    direct = Latencies.of(latencies[0])
    return [
        Added(
            name=contender.name,
            latencies=(measured := Latencies.of(row)),
            added_median_ms=measured.median_ms - direct.median_ms,
            added_p99_ms=measured.p99_ms - direct.p99_ms,
        )
        for contender, row in zip(contenders, latencies, strict=True)
    ]


async def throughput(
    contenders: Sequence[Contender],
    request: Callable[[Target, int], bytes],
    *,
    connections: int,
    seconds: float,
) -> list[Throughput]:
    """Saturate one contender after the other; then offer half of its saturated rate."""
    rows = []
    for contender in contenders:
        before = contender.watched.usage() if contender.watched else None
        measured = await saturated(
            contender.target,
            partial(request, contender.target),
            connections=connections,
            seconds=seconds,
        )
        spent_s = contender.watched.usage().cpu_s - before.cpu_s if contender.watched and before else 0.0
        steady = await open_loop(
            contender.target,
            partial(request, contender.target),
            per_second=_STEADY_SHARE * measured.per_second,
            seconds=seconds,
        )
        rows.append(
            Throughput(
                name=contender.name,
                saturated=measured,
                per_cpu_second=measured.latencies.count / spent_s if spent_s else None,
                steady=steady,
            )
        )
    return rows


async def streaming(contenders: Sequence[Contender], *, count: int) -> list[Streaming]:
    """Measure streams; the first contender is the mock itself, which sets the pace of the events."""
    replies = await _replies_in_turns(
        contenders,
        lambda target, number: target.chat(f"Tell {number}.", stream=True, stamped=True),
        count,
        at_a_turn=1,
    )
    rows = []
    for row in replies:
        gaps = [
            (later - earlier) * 1_000
            for reply in row
            for earlier, later in itertools.pairwise(reply.arrivals_s)
        ]
        ways = [
            (came - sent) * 1_000
            for reply in row
            for sent, came in zip(reply.stamps_s, reply.arrivals_s, strict=False)  # [DONE] has no stamp
        ]
        first = Latencies.of([reply.first_byte_ms for reply in row])
        rows.append((first, statistics.median(gaps), statistics.median(ways) if ways else None))
    direct_first, direct_gap, direct_way = rows[0]
    return [
        Streaming(
            name=contender.name,
            first_byte=first,
            added_first_byte_median_ms=first.median_ms - direct_first.median_ms,
            gap_median_ms=gap,
            added_gap_median_ms=gap - direct_gap,
            added_way_median_ms=None if way is None or direct_way is None else way - direct_way,
        )
        for contender, (first, gap, way) in zip(contenders, rows, strict=True)
    ]


async def first_token(
    contenders: Sequence[Contender],
    request: Callable[[Target, int], bytes],
    *,
    count: int,
) -> list[FirstToken]:
    """Measure the first token; the first contender is the mock itself, and `request` asks for streams."""
    replies = await _replies_in_turns(contenders, request, count, at_a_turn=1)
    rows = [Latencies.of([reply.first_byte_ms for reply in row]) for row in replies]
    return [
        FirstToken(
            name=contender.name,
            first_byte=first_byte,
            added_median_ms=first_byte.median_ms - rows[0].median_ms,
        )
        for contender, first_byte in zip(contenders, rows, strict=True)
    ]


async def _replies_in_turns(
    contenders: Sequence[Contender],
    request: Callable[[Target, int], bytes],
    count: int,
    *,
    at_a_turn: int,
) -> list[list[Reply]]:
    return await in_turns(
        [contender.target for contender in contenders],
        [partial(request, contender.target) for contender in contenders],
        count,
        at_a_turn=at_a_turn,
    )
