"""`serac bench runtimes`: whether two ways to compute encoder and classifier decide alike, and how fast.

Two routers over the same edits decide on the same queries, each with the vectors of its own encoder. The
disagreements are listed, for they are what a change of device or precision changes.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from serac_gateway.cli.bench import workload
from serac_gateway.cli.bench.load import Latencies
from serac_gateway.config.model import Device, GatewayConfig, Precision
from serac_gateway.domain.edits import DEFAULT_NAMESPACE, EditDraft, first_version, forms
from serac_gateway.domain.queries import Query
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.opening import index_maker
from serac_gateway.errors import ConfigError
from serac_gateway.models.loading import open_decision_models, open_form_reader
from serac_gateway.routing.router import EditRouter, RouteDecision
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import FormVectors, StoredEdit

MAX_LISTED = 50

_NEAR = ("Tell me: {}", "{} I forgot.", "{} And in the old days?", "Was it different before? {}", "hey, {}")
"""Around the prompts of edits: some in scope, some not."""


class RuntimeTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Of one way to compute."""

    name: str
    encoder: str
    """Fingerprint."""
    latencies: Latencies
    """Of a decision, while all threads decide."""
    per_second: float


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A query that the two decide differently on."""

    query: str
    first: str
    second: str
    """Route, edit and scope probability."""


class RuntimesResult(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison."""

    edits: int
    queries: int
    threads: int
    first: RuntimeTimes
    second: RuntimeTimes
    other_route: int
    other_edit: int
    """The same route by another edit."""
    largest_difference: float
    """Of the scope probability of the same edit, over all queries."""
    routes: dict[str, int]
    """Of the first."""
    listed: list[Disagreement]


def placed(config: GatewayConfig, name: str) -> GatewayConfig:
    """`config` with the device and the precision of `name`, such as "cpu:int8" or "cuda:bf16".

    Raises:
        ConfigError: They are none.
    """
    device, _, precision = name.partition(":")
    try:
        models = msgspec.structs.replace(
            config.models, device=Device(device), precision=Precision(precision) if precision else None
        )
    except ValueError as exc:
        raise ConfigError(
            f"{name!r} is no device and precision; give cpu:int8, cpu:fp32, cpu:bf16, cuda:bf16 or cuda:fp32"
        ) from exc
    return msgspec.structs.replace(config, models=models)


def bench_queries(edits: int, count: int) -> list[str]:
    """`count` queries without repetition as far as there are enough: near the edits, and everyday ones."""
    prompts = [edit["prompt"] for edit in workload.edits(edits)]
    near = (form.format(prompt) for form in _NEAR for prompt in prompts)
    everyday = itertools.cycle(workload.everyday_questions())
    mixed = itertools.chain.from_iterable(zip(near, near, everyday, strict=False))
    made = list(itertools.islice(mixed, count))
    return made + list(itertools.islice(everyday, count - len(made)))


def compare(
    config: GatewayConfig,
    names: tuple[str, str],
    *,
    edits: int,
    queries: Sequence[str],
    threads: int,
    say: Callable[[str], None] = lambda text: None,
) -> RuntimesResult:
    """Decide on `queries` in both ways, with `threads` at once.

    Raises:
        ConfigError: One cannot be opened here.
    """
    results = []
    for name in names:
        say(f"opening {name}")
        results.append(_decided(placed(config, name), name, edits, queries, threads, say))
    (first, first_times), (second, second_times) = results
    other_route = other_edit = 0
    largest = 0.0
    listed: list[Disagreement] = []
    for query, here, there in zip(queries, first, second, strict=True):
        if here.route is not there.route:
            other_route += 1
        elif _edit_of(here) != _edit_of(there):
            other_edit += 1
        else:
            if here.scope_probability is not None and there.scope_probability is not None:
                largest = max(largest, abs(here.scope_probability - there.scope_probability))
            continue
        if len(listed) < MAX_LISTED:
            listed.append(Disagreement(query=query, first=_in_words(here), second=_in_words(there)))
    return RuntimesResult(
        edits=edits,
        queries=len(queries),
        threads=threads,
        first=first_times,
        second=second_times,
        other_route=other_route,
        other_edit=other_edit,
        largest_difference=largest,
        routes=dict(Counter(decision.route.value for decision in first)),
        listed=listed,
    )


def _decided(
    config: GatewayConfig,
    name: str,
    edits: int,
    queries: Sequence[str],
    threads: int,
    say: Callable[[str], None],
) -> tuple[list[RouteDecision], RuntimeTimes]:
    encoder, classifier = open_decision_models(config)
    active_edits = ActiveEdits(
        store=InMemoryEditStore(), encoder=encoder, make_index=index_maker(encoder.width)
    )
    say(f"encoding {edits:,} edits")
    stored = []
    for fields in workload.edits(edits):
        draft = EditDraft(id=fields["id"], prompt=fields["prompt"], target_new=fields["target_new"])
        edit = first_version(draft, namespace=DEFAULT_NAMESPACE)
        vectors = FormVectors(fingerprint=encoder.fingerprint, vectors_FD=encoder.encode(forms(edit)))
        stored.append(StoredEdit(edit=edit, vectors=vectors))
    asyncio.run(active_edits.apply(DEFAULT_NAMESPACE, stored))
    router = EditRouter(
        encoder=encoder,
        active_edits=active_edits,
        classifier=classifier,
        config=config.routing_in_force,
        reader=open_form_reader(encoder),
    )

    def decide(text: str) -> tuple[RouteDecision, float]:
        begun = time.perf_counter()
        (decision,) = router.decide(DEFAULT_NAMESPACE, [Query(text=text)])
        return decision, 1_000 * (time.perf_counter() - begun)

    say(f"deciding on {len(queries):,} queries")
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decide, queries[: 4 * threads]))  # kernels are chosen at the first of each shape
        begun = time.perf_counter()
        decided = list(pool.map(decide, queries))
        seconds = time.perf_counter() - begun
    times = RuntimeTimes(
        name=name,
        encoder=encoder.fingerprint,
        latencies=Latencies.of([ms for _, ms in decided]),
        per_second=len(queries) / seconds,
    )
    return [decision for decision, _ in decided], times


def _edit_of(decision: RouteDecision) -> str | None:
    return None if decision.edit is None else decision.edit.id


def _in_words(decision: RouteDecision) -> str:
    probability = decision.scope_probability
    return f"{decision.route.value} {_edit_of(decision) or '-'}" + (
        "" if probability is None else f" {probability:.3f}"
    )


def read_queries(file: Path, count: int) -> list[str]:
    """The first `count` lines of `file` that are not blank.

    Raises:
        ConfigError: It cannot be read, or has none.
    """
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"cannot read the queries in {str(file)!r}: {exc}; give a UTF-8 file") from exc
    queries = [line for line in lines if line][:count]
    if not queries:
        raise ConfigError(f"{str(file)!r} has no queries; give one a line")
    return queries
