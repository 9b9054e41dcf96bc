"""How much memory, how many cores and gateways a number of edits and of requests takes.

Every figure of `MEASURED` was measured on the two cores that docs/results.md describes, or is given by the
caller; every other number is computed from these, and queues are replayed (see queueing.py).
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from serac_gateway.cli.bench.queueing import Distribution, Waiting, fewest_workers, mean_wait_s, simulated

_GIB = 2**30
_MIB = 2**20
_REPLAYED = 100_000
_MAX_GATEWAYS = 1_000_000


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. Override what differs with you."""

    everyday: Distribution = Distribution(median_ms=4.3, p95_ms=5.3, p99_ms=6.5)
    """A decision that reads no candidate, on one thread, among `at_edits` edits. The 99th percentile is not
    measured: it is scaled from the other."""
    near: Distribution = Distribution(median_ms=11.7, p95_ms=23.0, p99_ms=28.0)
    """A decision with the cross-encoder."""
    near_share: float = 0.73
    """Share of the decisions that read candidates."""
    at_edits: int = 10_000
    search_ms: float | None = None
    """Of a search in the largest namespace, where it was measured; None: an exact search is computed from the
    next two."""
    rows_ms: float = 37e-6
    """An exact search, for each row of 384 numbers that lies in the cache (at most 30,000 rows)."""
    far_rows_ms: float = 86e-6
    """The same for rows in memory."""
    pass_ms: float = 0.2
    """CPU time of a request beside its decision: 4,944 requests a CPU second."""
    bytes_per_row: float = 2_320
    """In single and in half precision, with its key."""
    bytes_per_edit: float = 2_000
    """Text, metadata and Python's objects: (628 MiB for 100,000 edits of two rows) less the rows."""
    process_bytes: float = 785 * _MIB
    """A gateway with its models and without edits."""
    apply_ms: float = 0.37
    """CPU time of a replica for a write that comes alone; 0.11 for writes in commits of ten."""
    publish_ms: float = 10.0
    """From a commit's reply to its effect elsewhere, 95th percentile without load."""
    commits_per_second: float = 500.0
    """That one store made durable, fsync always, with 24 under way."""
    gpu_decision_ms: float | None = None
    """What a decision keeps a card busy at full batches; None: not measured, so no cards are computed."""
    store_bytes_per_edit: float = 4_514
    """In Valkey, for an edit of one version and two rows of 384 in single precision."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be served."""

    edits: int
    largest_namespace: int
    """Edits of it; a request is searched in one namespace."""
    requests_per_second: float
    decided: float = 1.0
    """Share of the requests in namespaces that have edits."""
    writes_per_second: float = 1.0
    forms: float = 2.0
    """Rows of an edit."""
    cores: int = 2
    """Of a gateway."""
    memory_gib: float = 16.0
    """Of a gateway."""
    p99_ms: float = 150.0
    """Of a decision with its wait."""
    utilisation: float = 0.6
    """At which a gateway is full, 0 to 1."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes. All of it is computed from measured figures."""

    groups: int
    """Installations with a store and gateways of their own, each for a part of the namespaces: 1, unless the
    edits exceed a gateway's memory."""
    gateways: int
    """In all groups together."""
    gateway_memory_gib: float
    gpus: int | None
    """Cards in place of the cores that decide, with a spare one in each group; None: nothing was measured."""
    search_ms: float
    """Of a search in the largest namespace."""
    decision_ms: float
    """The mean, search included."""
    waiting: Waiting
    """Replayed, of one gateway at its share of the requests."""
    mean_wait_by_formula_ms: float
    """The same mean wait by the closed form; near `waiting.mean_wait_s`, or the replay is wrong."""
    replication_cpu: float
    """Share of one core that every gateway spends on writes of others."""
    replication_lag_ms: float
    """Computed: publishing and the wait of a write among others (M/D/1 mean)."""
    commits_share: float
    """Of what the store of a group can commit; above 1 it cannot."""
    store_memory_gib: float
    """Of each group's store, without copies."""
    problems: list[str]
    """What cannot work as it stands, each with a remedy."""
    figures: Figures
    """The measured ones it is computed from."""


def planned(demand: Demand, figures: Figures, *, seed: int = 7) -> Plan:
    """The least number of gateways that keep `demand`'s utilisation and 99th percentile.

    Raises:
        ValueError: No number of gateways can: a single decision takes longer.
    """
    rng = np.random.default_rng(seed)
    groups = _groups(demand, figures)
    edits = math.ceil(demand.edits / groups)
    largest = min(demand.largest_namespace, edits)
    search_ms = figures.search_ms
    if search_ms is None:
        search_ms = exact_search_ms(largest * demand.forms, figures)
    extra_ms = search_ms - exact_search_ms(figures.at_edits * demand.forms, figures)
    service_s = _service_s(rng, figures, demand, extra_ms)
    if float(np.quantile(service_s, 0.99)) * 1_000 > demand.p99_ms:
        raise ValueError(
            f"one decision in a hundred takes {np.quantile(service_s, 0.99) * 1_000:.0f} ms without any wait,"
            f" more than the {demand.p99_ms:g} ms allowed: split the largest namespace, or allow more"
        )
    rate = demand.requests_per_second / groups
    count = fewest_workers(rate * float(service_s.mean()) / demand.cores, utilisation=demand.utilisation)
    waiting = simulated(rng, rate=rate / count, service_s=service_s, workers=demand.cores)
    while waiting.p99_s * 1_000 > demand.p99_ms and count < _MAX_GATEWAYS:
        count = max(count + 1, round(1.1 * count))
        waiting = simulated(rng, rate=rate / count, service_s=service_s, workers=demand.cores)
    writes = demand.writes_per_second / groups
    applying = writes * figures.apply_ms / 1_000
    plan = Plan(
        groups=groups,
        gateways=groups * count,
        gateway_memory_gib=gateway_bytes(edits, largest, demand.forms, figures) / _GIB,
        gpus=_gpus(rate * demand.decided, demand, figures, groups),
        search_ms=search_ms,
        decision_ms=float(service_s.mean()) * 1_000,
        waiting=waiting,
        mean_wait_by_formula_ms=1_000 * mean_wait_s(rate / count, service_s, demand.cores),
        replication_cpu=applying,
        replication_lag_ms=_lag_ms(applying, figures),
        commits_share=writes / figures.commits_per_second,
        store_memory_gib=edits * figures.store_bytes_per_edit / _GIB,
        problems=[],
        figures=figures,
    )
    return msgspec.structs.replace(plan, problems=_problems(plan, demand))


def exact_search_ms(rows: float, figures: Figures) -> float:
    """Of an exact search over so many rows: those up to 30,000 lie in the cache."""
    return rows * (figures.rows_ms if rows <= 30_000 else figures.far_rows_ms)


def gateway_bytes(edits: int, largest_namespace: int, forms: float, figures: Figures) -> float:
    """Of a gateway's memory: process, edits, a fifth of dead rows, and the largest namespace built twice."""
    rows = 1.2 * forms * figures.bytes_per_row
    built_twice = largest_namespace * rows / 1.2
    return figures.process_bytes + edits * (rows + figures.bytes_per_edit) + built_twice


def _groups(demand: Demand, figures: Figures) -> int:
    room = 0.8 * demand.memory_gib * _GIB
    for groups in range(1, 1_000_000):
        edits = math.ceil(demand.edits / groups)
        if gateway_bytes(edits, min(demand.largest_namespace, edits), demand.forms, figures) <= room:
            return groups
        if gateway_bytes(1, 1, demand.forms, figures) > room:
            break
    raise ValueError(f"a gateway without edits does not fit into {demand.memory_gib:g} GiB: give it more")


def _service_s(
    rng: np.random.Generator, figures: Figures, demand: Demand, extra_ms: float
) -> NDArray[np.float64]:
    is_near = rng.random(_REPLAYED) < figures.near_share
    decisions_s = np.where(
        is_near, figures.near.sample_s(rng, _REPLAYED), figures.everyday.sample_s(rng, _REPLAYED)
    )
    decisions_s = np.maximum(decisions_s + extra_ms / 1_000, 1e-6)
    is_decided = rng.random(_REPLAYED) < demand.decided
    return np.asarray(np.where(is_decided, decisions_s, 0.0) + figures.pass_ms / 1_000)


def _gpus(rate: float, demand: Demand, figures: Figures, groups: int) -> int | None:
    if figures.gpu_decision_ms is None:
        return None
    busy = rate * figures.gpu_decision_ms / 1_000
    return groups * (fewest_workers(busy, utilisation=demand.utilisation) + 1)


def _lag_ms(applying: float, figures: Figures) -> float:
    if applying >= 1:
        return math.inf
    return figures.publish_ms + figures.apply_ms * (1 + applying / (2 * (1 - applying)))


def _problems(plan: Plan, demand: Demand) -> list[str]:
    problems = []
    if plan.replication_cpu > 0.2 * demand.cores:
        problems.append(
            f"every gateway spends {plan.replication_cpu:.0%} of a core on writes: commit several together"
        )
    if plan.commits_share > 0.5:
        problems.append(
            f"writes take {plan.commits_share:.0%} of what one store commits: a faster disk, several in"
            " a commit, or a Cluster, in which each namespace is on one node"
        )
    if plan.groups > 1:
        problems.append(
            f"the edits exceed a gateway's memory: {plan.groups} installations, each for a part of the"
            " namespaces, or a gateway with more memory"
        )
    if plan.search_ms > 0.5 * plan.decision_ms:
        problems.append(
            f"the search takes {plan.search_ms:.0f} of {plan.decision_ms:.0f} ms: use an approximate index,"
            " or split the namespace"
        )
    return problems
