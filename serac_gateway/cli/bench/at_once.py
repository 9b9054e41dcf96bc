"""Many clients that ask at the same moment: whether their answers progress together, who is turned away."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter

import msgspec

from serac_gateway.cli.bench.load import Latencies, Request
from serac_gateway.cli.bench.wire import BenchError, Connection, Reply, Target


class AtOnce(msgspec.Struct, frozen=True, kw_only=True):
    """Streamed replies to requests that are sent together, some times over."""

    clients: int
    rounds: int
    first_byte: Latencies
    """Of answered requests, as all latencies here."""
    whole: Latencies
    last_by_first: float
    """The last first byte of a round by the first one, both from the sending; the median of the rounds."""
    by_status: dict[str, int]
    """"none": no reply came, or the connection was closed."""
    by_route: dict[str, int]
    """Answered ones of a gateway; what the counterfactual model did not answer was shed to the upstream."""


async def at_once(
    target: Target, request: Request, *, clients: int, rounds: int, timeout_s: float = 120.0
) -> AtOnce:
    """Send `clients` requests at the same moment, and again when all have their replies.

    Raises:
        BenchError: The target is not reached, or a round has no reply.
    """
    statuses: Counter[str] = Counter()
    routes: Counter[str] = Counter()
    answered: list[Reply] = []
    ratios = []
    for turn in range(rounds):
        connections = [await Connection.open(target.url) for _ in range(clients)]
        outcomes = await asyncio.gather(
            *(
                connection.ask(request(turn * clients + number), timeout_s=timeout_s)
                for number, connection in enumerate(connections)
            ),
            return_exceptions=True,
        )
        for connection in connections:
            connection.close()
        replies = [reply for reply in outcomes if isinstance(reply, Reply)]
        for failed in outcomes:
            if isinstance(failed, BaseException) and not isinstance(failed, BenchError):
                raise failed
        statuses["none"] += clients - len(replies)
        statuses.update(str(reply.status) for reply in replies)
        round_answered = [reply for reply in replies if reply.status == 200]
        if not round_answered:
            raise BenchError(f"{target.url!r} answered none of {clients} requests at once with status 200")
        routes.update(reply.route for reply in round_answered if reply.route is not None)
        first_ms = [reply.first_byte_ms for reply in round_answered]
        ratios.append(max(first_ms) / min(first_ms))
        answered += round_answered
    return AtOnce(
        clients=clients,
        rounds=rounds,
        first_byte=Latencies.of([reply.first_byte_ms for reply in answered]),
        whole=Latencies.of([reply.latency_ms for reply in answered]),
        last_by_first=statistics.median(ratios),
        by_status={status: count for status, count in statuses.items() if count},
        by_route=dict(routes),
    )
