"""Resident memory of a gateway: for each idle stream, and over very many requests."""

from __future__ import annotations

import asyncio
import itertools
import math
import statistics
from collections.abc import Callable, Sequence

import msgspec

from serac_gateway.cli.bench.contenders import Contender
from serac_gateway.cli.bench.processes import settled
from serac_gateway.cli.bench.wire import Connection, Target

_MEBIBYTE = 1_048_576
_OPENING_S = 3.0
"""Time for all streams to begin, or to end."""
_SETTLING_S = 0.5
"""A pause before memory is read, in which memory of ended requests is freed."""
_UNCOUNTED_SHARE = 0.25
"""Share of the samples, from the first, that are not used: caches and pools are still filling."""
_Z_95 = statistics.NormalDist().inv_cdf(0.975)


class Slope(msgspec.Struct, frozen=True, kw_only=True):
    """Growth of memory in bytes per 1,000 requests, with its 95 % confidence interval."""

    bytes_per_1000_requests: float
    low: float
    high: float
    samples: int

    @property
    def is_indistinguishable_from_zero(self) -> bool:
        """Whether the interval contains zero."""
        return self.low <= 0 <= self.high


class IdleStreams(msgspec.Struct, frozen=True, kw_only=True):
    """Resident memory of a contender with open streams that receive no events."""

    streams: int
    mib_before: float
    kib_per_stream: float


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Resident memory of a contender and its children, while it serves `requests`."""

    requests: int
    mib: list[float]
    """At equal steps, each after a pause."""
    slope: Slope


async def idle_streams(
    contender: Contender, request: Callable[[Target, int], bytes], *, streams: int
) -> IdleStreams:
    """Measure idle streams. Run it first: heap left by other work would hide the memory of the streams.

    Raises:
        BenchError: The contender is not reached, or a reply does not come.
    """
    assert contender.watched is not None
    target = contender.target
    warm = await Connection.open(target.url)
    await _ask(warm, target, request, 200)
    warm.close()
    before = (await settled(contender.watched)).resident_bytes
    idle = [await Connection.open(target.url) for _ in range(streams)]
    for connection in idle:
        connection.begin(target.chat("Wait.", stream=True, idle=True))
    during = (await settled(contender.watched, seconds=_OPENING_S)).resident_bytes
    for connection in idle:
        connection.close()
    await asyncio.sleep(_OPENING_S)
    return IdleStreams(
        streams=streams,
        mib_before=before / _MEBIBYTE,
        kib_per_stream=(during - before) / 1_024 / max(1, streams),
    )


async def memory(
    contender: Contender,
    request: Callable[[Target, int], bytes],
    *,
    requests: int,
    connections: int = 8,
    steps: int = 40,
    settling_s: float = _SETTLING_S,
) -> Memory:
    """Send `requests` requests from `connections` clients, and read memory after each of `steps` steps.

    Raises:
        BenchError: The contender is not reached, or a reply does not come.
    """
    assert contender.watched is not None
    watched, target = contender.watched, contender.target
    clients = [await Connection.open(target.url) for _ in range(connections)]
    sizes = []
    for _ in range(steps):
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(_ask(client, target, request, requests // steps // connections))
        sizes.append((await settled(watched, seconds=settling_s)).resident_bytes)
    for client in clients:
        client.close()
    return Memory(
        requests=requests,
        mib=[size / _MEBIBYTE for size in sizes],
        slope=slope(sizes[int(_UNCOUNTED_SHARE * steps) :], requests / steps),
    )


def slope(resident_bytes: Sequence[int], requests_apart: float) -> Slope:
    """The trend of at least two samples that are `requests_apart`.

    Theil and Sen's: the median of the slopes between all pairs, with the interval that Kendall's test gives.
    Memory grows in steps, which a least-squares fit would mistake for noise or for a trend.

    Source: P. K. Sen, "Estimates of the Regression Coefficient Based on Kendall's Tau", 1968.
    """
    samples = len(resident_bytes)
    slopes = sorted(
        (later - earlier) / (there - here) / requests_apart * 1_000
        for (here, earlier), (there, later) in itertools.combinations(enumerate(resident_bytes), 2)
    )
    spread = _Z_95 * math.sqrt(samples * (samples - 1) * (2 * samples + 5) / 18)
    low = max(0, math.floor((len(slopes) - spread) / 2))
    return Slope(
        bytes_per_1000_requests=statistics.median(slopes),
        low=slopes[low],
        high=slopes[len(slopes) - 1 - low],
        samples=samples,
    )


async def _ask(
    client: Connection, target: Target, request: Callable[[Target, int], bytes], count: int
) -> None:
    for number in range(count):
        await client.ask(request(target, number))
