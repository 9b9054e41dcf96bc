"""Kinds of load on a target. Latencies are in milliseconds, rates in requests a second."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from serac_gateway.cli.bench.wire import BenchError, Connection, Reply, Target

_BETWEEN_TURNS_S = 0.05

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
        """The distribution of at least one latency."""
        if len(latencies_ms) == 1:
            (only,) = latencies_ms
            return cls(count=1, median_ms=only, p95_ms=only, p99_ms=only)
        cuts = statistics.quantiles(latencies_ms, n=100, method="inclusive")
        return cls(count=len(latencies_ms), median_ms=cuts[49], p95_ms=cuts[94], p99_ms=cuts[98])


class Saturated(msgspec.Struct, frozen=True, kw_only=True):
    """A target's rate and latencies while every client always waits for a reply."""

    per_second: float
    connections: int
    latencies: Latencies


class OpenLoop(msgspec.Struct, frozen=True, kw_only=True):
    """A target's replies to requests at a given rate, whether or not it keeps up."""

    offered_per_second: float
    """The real rate: the times between requests are random."""
    answered_per_second: float
    """With a status below 500."""
    by_status: dict[str, int]
    """"none": no reply came, or the connection was closed."""
    by_route: dict[str, int]
    """Replies of a gateway by their route."""
    latencies: Latencies | None
    """Of answered requests, from the time at which they were due, so that a late start counts."""


async def in_turns(
    targets: Sequence[Target],
    requests: Sequence[Request],
    count: int,
    *,
    warm_up: int = 50,
    at_a_turn: int = 1,
) -> list[list[Reply]]:
    """`count` requests to each target from one client, in turns, so that all meet the same machine load.

    `at_a_turn` requests go to one target before the next one's turn, and a pause between turns keeps what a
    target does after its reply (writing a log, say) out of the next one's times.

    Raises:
        BenchError: A target is not reached, or answers with another status than 200.
    """
    connections = [await Connection.open(target.url) for target in targets]
    replies: list[list[Reply]] = [[] for _ in targets]

    async def ask(position: int, number: int) -> Reply:
        reply = await connections[position].ask(requests[position](number))
        if reply.status != 200:
            raise BenchError(f"{targets[position].url!r} answered with status {reply.status}, not 200")
        return reply

    for number, position in itertools.product(range(warm_up), range(len(targets))):
        await ask(position, number)
    for start in range(0, count, at_a_turn):
        for position in range(len(targets)):
            if at_a_turn > 1:
                await asyncio.sleep(_BETWEEN_TURNS_S)
            for number in range(start, min(count, start + at_a_turn)):
                replies[position].append(await ask(position, number))
    for connection in connections:
        connection.close()
    return replies


async def saturated(target: Target, request: Request, *, connections: int, seconds: float) -> Saturated:
    """Send requests from `connections` clients, each as soon as it has its reply.

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
    """Send requests at the times of a Poisson process, without waiting for earlier replies."""
    rng = random.Random(seed)
    idle: list[Connection] = []
    statuses: Counter[str] = Counter()
    routes: Counter[str] = Counter()
    latencies: list[float] = []

    async def send(number: int, due: float) -> None:
        try:
            connection = idle.pop() if idle else await Connection.open(target.url)
            reply = await connection.ask(request(number), timeout_s=timeout_s)
        except BenchError:
            statuses["none"] += 1
            return
        if connection.is_open:
            idle.append(connection)
        statuses[str(reply.status)] += 1
        if reply.route is not None:
            routes[reply.route] += 1
        if reply.status < 500:
            latencies.append((reply.ended_s - due) * 1_000)

    count = max(1, int(per_second * seconds))
    begun = due = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due += rng.expovariate(per_second)
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            group.create_task(send(number, due))
    ended = time.perf_counter()
    for connection in idle:
        connection.close()
    return OpenLoop(
        offered_per_second=count / (due - begun),
        answered_per_second=len(latencies) / (ended - begun),
        by_status=dict(statuses),
        by_route=dict(routes),
        latencies=Latencies.of(latencies) if latencies else None,
    )
