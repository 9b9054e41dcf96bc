"""Queues in front of workers: closed forms, and a simulation that replays a measured distribution.

Arrivals are random (a Poisson process), the queue is one and first come first served. Times are in seconds.
"""

from __future__ import annotations

import heapq
import math

import msgspec
import numpy as np
from numpy.typing import NDArray


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """A time as it was measured: quantiles, in milliseconds, between which it is interpolated."""

    median_ms: float
    p95_ms: float
    p99_ms: float
    count: int = 0
    """Of the measurement."""

    def sample_s(self, rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        """`size` times in seconds, replayed by the inverse of the distribution function.

        The least time is taken as half of the median, the greatest as 1.5 times the 99th percentile.
        """
        quantiles = (0.0, 0.5, 0.95, 0.99, 1.0)
        times_ms = (self.median_ms / 2, self.median_ms, self.p95_ms, self.p99_ms, 1.5 * self.p99_ms)
        return np.interp(rng.random(size), quantiles, times_ms) / 1_000


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What customers of a queue have seen."""

    utilisation: float
    """Share of the time in which a worker works, 0 to 1."""
    mean_wait_s: float
    p50_s: float
    """Of waiting and service together, as the next."""
    p99_s: float


def erlang_c(load: float, workers: int) -> float:
    """The probability that a customer of M/M/c waits; `load` is arrival rate times mean service time.

    Raises:
        ValueError: `load` is not below `workers`, so that the queue would grow for ever.
    """
    if not 0 <= load < workers:
        raise _overloaded(load, workers)
    blocked = 1.0  # Erlang B by its recursion, which does not overflow
    for number in range(1, workers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - load / workers * (1 - blocked))


def mean_wait_s(rate: float, service_s: NDArray[np.float64], workers: int) -> float:
    """The mean wait: exact for one worker (Pollaczek and Khinchine), for more by Allen and Cunneen.

    `rate` is arrivals a second, `service_s` a sample of service times. Raises as `erlang_c`.
    """
    mean, square = float(service_s.mean()), float((service_s**2).mean())
    waits = erlang_c(rate * mean, workers)
    of_exponential = waits * mean / (workers - rate * mean)
    return of_exponential * square / (2 * mean**2)


def simulated(
    rng: np.random.Generator, *, rate: float, service_s: NDArray[np.float64], workers: int
) -> Waiting:
    """Replay one customer for each of `service_s`, the first tenth to warm up.

    Raises:
        ValueError: Fewer than 100 customers, or the queue would grow for ever.
    """
    if len(service_s) < 100:
        raise ValueError(f"{len(service_s)} customers are too few; replay at least 100")
    load = rate * float(service_s.mean())
    if load >= workers:
        raise _overloaded(load, workers)
    arrivals_s = np.cumsum(rng.exponential(1 / rate, len(service_s)))
    free_at_s = [0.0] * workers
    waits_s = np.empty(len(service_s))
    for number, (arrival_s, takes_s) in enumerate(zip(arrivals_s.tolist(), service_s.tolist(), strict=True)):
        begun_s = max(arrival_s, free_at_s[0])
        heapq.heapreplace(free_at_s, begun_s + takes_s)
        waits_s[number] = begun_s - arrival_s
    warm = len(service_s) // 10
    spent_s = waits_s[warm:] + service_s[warm:]
    return Waiting(
        utilisation=load / workers,
        mean_wait_s=float(waits_s[warm:].mean()),
        p50_s=float(np.quantile(spent_s, 0.5)),
        p99_s=float(np.quantile(spent_s, 0.99)),
    )


def _overloaded(load: float, workers: int) -> ValueError:
    return ValueError(f"a load of {load:g} needs more than {workers} workers: the queue would grow for ever")


def fewest_workers(load: float, *, utilisation: float) -> int:
    """How many workers keep below that utilisation, 0 to 1."""
    return max(1, math.ceil(load / utilisation - 1e-9))
