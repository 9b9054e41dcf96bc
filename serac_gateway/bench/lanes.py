"""What `serac bench proxy` measures: the same requests to the mock, through the gateway, through a peer.

Everything is asked in one run and in turns, because two runs on a shared machine meet different weather.
Ratios hold where absolute numbers do not.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from serac_gateway.bench.loads import Latencies, Saturated, in_turns, saturated
from serac_gateway.bench.processes import Watched, settled
from serac_gateway.bench.wire import Connection, Reply, Target

_MEBIBYTE = 1_048_576


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """A way to the mock, and the process whose use counts; None: it cannot be watched."""

    name: str
    target: Target
    watched: Watched | None = None


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """What a contender adds to the mock's own latency, one client, request by request in turns."""

    name: str
    latencies: Latencies
    added_median_ms: float
    added_p99_ms: float


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """What a contender carries."""

    name: str
    saturated: Saturated
    per_cpu_second: float | None
    """Requests for each second of CPU that the contender's processes used: its rate per core."""


class Streaming(msgspec.Struct, frozen=True, kw_only=True):
    """What a contender adds to a stream of server-sent events."""

    name: str
    first_byte: Latencies
    added_first_byte_median_ms: float
    gap_median_ms: float
    """Between two events."""
    added_gap_median_ms: float


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Resident memory of a contender, MiB unless named."""

    name: str
    at_rest: float
    streams: int
    kib_per_idle_stream: float
    requests: int
    after_requests: list[float]
    """At equal steps on the way to `requests`."""
    kib_per_1000_requests: float
    """The slope of a line through the second half of the steps."""


async def added_latency(
    contenders: Sequence[Contender], request: Callable[[Target, int], bytes], *, count: int
) -> list[Added]:
    """The first contender is the mock itself."""
    replies = await _asked_in_turns(contenders, request, count)
    latencies = [[reply.latency_ms for reply in row] for row in replies]
    direct = Latencies.of(latencies[0])
    return [
        Added(
            name=contender.name,
            latencies=(found := Latencies.of(row)),
            added_median_ms=found.median_ms - direct.median_ms,
            added_p99_ms=found.p99_ms - direct.p99_ms,
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
    """Saturate one contender after the other."""
    found = []
    for contender in contenders:
        before = contender.watched.usage() if contender.watched else None
        measured = await saturated(
            contender.target,
            partial(request, contender.target),
            connections=connections,
            seconds=seconds,
        )
        spent_s = contender.watched.usage().cpu_s - before.cpu_s if contender.watched and before else 0.0
        found.append(
            Throughput(
                name=contender.name,
                saturated=measured,
                per_cpu_second=measured.latencies.count / spent_s if spent_s else None,
            )
        )
    return found


async def streaming(contenders: Sequence[Contender], *, count: int) -> list[Streaming]:
    """The first contender is the mock itself, whose events come at a pace of its own."""
    replies = await _asked_in_turns(
        contenders, lambda target, number: target.chat(f"Tell {number}.", stream=True), count
    )
    rows = []
    for row in replies:
        gaps = [
            (later - earlier) * 1_000
            for reply in row
            for earlier, later in itertools.pairwise(reply.arrivals_s)
        ]
        rows.append((Latencies.of([reply.first_byte_ms for reply in row]), statistics.median(gaps)))
    (direct_first, direct_gap), *_ = rows
    return [
        Streaming(
            name=contender.name,
            first_byte=first,
            added_first_byte_median_ms=first.median_ms - direct_first.median_ms,
            gap_median_ms=gap,
            added_gap_median_ms=gap - direct_gap,
        )
        for contender, (first, gap) in zip(contenders, rows, strict=True)
    ]


async def memory(
    contender: Contender,
    request: Callable[[Target, int], bytes],
    *,
    streams: int,
    requests: int,
    steps: int = 20,
) -> Memory:
    """Open idle streams and close them, then ask on and on."""
    assert contender.watched is not None
    warm = await Connection.open(contender.target.url)
    for number in range(200):
        await warm.ask(request(contender.target, number))
    rest = await settled(contender.watched)
    idle = [await Connection.open(contender.target.url) for _ in range(streams)]
    for connection in idle:
        connection.begin(contender.target.chat("Wait.", stream=True, idle=True))
    open_ = await settled(contender.watched, seconds=3.0)
    for connection in idle:
        connection.close()
    await asyncio.sleep(2.0)
    sizes = []
    for _ in range(steps):
        for number in range(requests // steps):
            await warm.ask(request(contender.target, number))
        sizes.append(contender.watched.usage().resident_bytes / _MEBIBYTE)
    warm.close()
    later = sizes[len(sizes) // 2 :]
    slope_mib = statistics.linear_regression(range(len(later)), later).slope if len(later) > 1 else 0.0
    return Memory(
        name=contender.name,
        at_rest=rest.resident_bytes / _MEBIBYTE,
        streams=streams,
        kib_per_idle_stream=(open_.resident_bytes - rest.resident_bytes) / 1_024 / max(1, streams),
        requests=requests,
        after_requests=sizes,
        kib_per_1000_requests=slope_mib * 1_024 / (requests / steps / 1_000),
    )


async def _asked_in_turns(
    contenders: Sequence[Contender], request: Callable[[Target, int], bytes], count: int
) -> list[list[Reply]]:
    return await in_turns(
        [contender.target for contender in contenders],
        [partial(request, one.target) for one in contenders],
        count,
    )
