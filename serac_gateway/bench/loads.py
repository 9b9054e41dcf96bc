"""Ways of putting a target under load. Latencies are in milliseconds, rates in requests a second."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence

import msgspec

from serac_gateway.bench.wire import BenchError, Connection, Reply, Target

Request = Callable[[int], bytes]
"""The bytes of the n-th request."""


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution, in milliseconds."""

    count: int
    median_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, latencies_ms: Sequence[float]) -> Latencies:
        """Of at least one latency."""
        if len(latencies_ms) == 1:
            (only,) = latencies_ms
            return cls(count=1, median_ms=only, p95_ms=only, p99_ms=only)
        cuts = statistics.quantiles(latencies_ms, n=100, method="inclusive")
        return cls(count=len(latencies_ms), median_ms=cuts[49], p95_ms=cuts[94], p99_ms=cuts[98])


class Saturated(msgspec.Struct, frozen=True, kw_only=True):
    """What a target does when somebody always waits."""

    per_second: float
    connections: int
    latencies: Latencies


class OpenLoop(msgspec.Struct, frozen=True, kw_only=True):
    """What a target does under requests that come whether or not it keeps up."""

    offered_per_second: float
    answered_per_second: float
    """With a status below 500."""
    by_status: dict[str, int]
    """"none": no reply came, or the connection was closed."""
    latencies: Latencies | None
    """From when a request was due, so that waiting for a late one counts; of those answered."""


async def in_turns(
    targets: Sequence[Target], requests: Sequence[Request], count: int, *, warm_up: int = 50
) -> list[list[Reply]]:
    """`count` requests to each target from one client, in turns, so that all meet the same weather.

    Raises:
        BenchError: One is not reached, or answers with another status than 200.
    """
    connections = [await Connection.open(target.url) for target in targets]
    replies: list[list[Reply]] = [[] for _ in targets]
    for number in range(-warm_up, count):
        for position, connection in enumerate(connections):
            reply = await connection.ask(requests[position](abs(number)))
            if reply.status != 200:
                raise BenchError(f"{targets[position].url!r} answered with status {reply.status}, not 200")
            if number >= 0:
                replies[position].append(reply)
    for connection in connections:
        connection.close()
    return replies


async def saturated(target: Target, request: Request, *, connections: int, seconds: float) -> Saturated:
    """Ask from `connections` clients, each as soon as it has its reply.

    Raises:
        BenchError: The target is not reached, or answers with another status than 200.
    """
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    begun = time.perf_counter()

    async def client(number: int) -> None:
        connection = await Connection.open(target.url)
        turn = number
        while time.perf_counter() < end:
            reply = await connection.ask(request(turn))
            if reply.status != 200:
                raise BenchError(f"{target.url!r} answered with status {reply.status}, not 200")
            latencies.append(reply.latency_ms)
            turn += connections
        connection.close()

    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            group.create_task(client(number))
    return Saturated(
        per_second=len(latencies) / (time.perf_counter() - begun),
        connections=connections,
        latencies=Latencies.of(latencies),
    )


async def open_loop(
    target: Target,
    request: Request,
    *,
    per_second: float,
    seconds: float,
    seed: int = 0,
    timeout_s: float = 30.0,
) -> OpenLoop:
    """Requests at the times of a Poisson process, whatever becomes of the ones before."""
    rng = random.Random(seed)
    idle: list[Connection] = []
    statuses: dict[str, int] = {}
    latencies: list[float] = []

    async def one(number: int, due: float) -> None:
        try:
            connection = idle.pop() if idle else await Connection.open(target.url)
            reply = await connection.ask(request(number), timeout_s=timeout_s)
        except BenchError:
            statuses["none"] = statuses.get("none", 0) + 1
            return
        if connection.is_open:
            idle.append(connection)
        statuses[str(reply.status)] = statuses.get(str(reply.status), 0) + 1
        if reply.status < 500:
            latencies.append((reply.ended_s - due) * 1_000)

    begun = due = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(per_second * seconds)):
            due += rng.expovariate(per_second)
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            group.create_task(one(number, due))
    took = time.perf_counter() - begun
    for connection in idle:
        connection.close()
    return OpenLoop(
        offered_per_second=per_second,
        answered_per_second=len(latencies) / took,
        by_status=statuses,
        latencies=Latencies.of(latencies) if latencies else None,
    )
