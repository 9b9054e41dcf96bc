"""`serac bench proxy`: the lanes in a row, over a mock and a gateway that are started for it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from serac_gateway.bench import material
from serac_gateway.bench.lanes import (
    Added,
    Contender,
    Memory,
    Streaming,
    Throughput,
    added_latency,
    memory,
    streaming,
    throughput,
)
from serac_gateway.bench.loads import OpenLoop, open_loop, saturated
from serac_gateway.bench.processes import GatewayProcess, Watched, running_gateway, running_mock
from serac_gateway.bench.wire import Target

MOCK, BYPASSED, CLASSIFIED, PEER = "mock", "gateway, no edits", "gateway, classifying", "peer"
_EDITED = "bench"
_LARGE_BODY_BYTES = 1_000_000
_OVERLOAD = 3.0

OnProgress = Callable[[str], None]


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Another proxy in front of the same mock."""

    url: str
    """Up to and with /v1."""
    pid: int | None = None
    """Its process here, if its use is to be counted."""
    api_key: str | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is asked."""

    edits: int = 10_000
    requests: int = 2_000
    """Of one client, in the latency lane."""
    seconds: float = 5.0
    """Of every load that saturates."""
    connections: int = 32
    streams: int = 1_000
    """Idle ones."""
    memory_requests: int = 100_000
    event_gap_ms: float = 2.0
    """Between two events of the mock's streams."""
    mock_port: int = 0
    """0: any; a peer needs to know it."""


class Overload(msgspec.Struct, frozen=True, kw_only=True):
    """Three times the in-scope requests that can be answered, beside other traffic."""

    answers_per_second: float
    """What can be answered, measured before."""
    in_scope: OpenLoop
    beside: OpenLoop
    """Out-of-scope traffic at the same time."""
    beside_alone: OpenLoop
    """The same traffic when nothing else is asked."""


class ProxyResult(msgspec.Struct, frozen=True, kw_only=True):
    """All lanes of one run."""

    plan: Plan
    latency: list[Added]
    large_bodies: list[Added]
    throughput: list[Throughput]
    streaming: list[Streaming]
    overload: Overload
    memory: Memory


async def measured(
    plan: Plan,
    *,
    peer: Peer | None,
    models_from: Path | None,
    store_edits: Callable[[str, str, list[dict[str, str]]], object],
    on_progress: OnProgress,
) -> ProxyResult:
    """Run every lane.

    `store_edits(url, namespace, edits)` puts edits into a gateway; it runs on a thread.

    Raises:
        BenchError: Something does not start or does not answer.
    """
    on_progress("starting the mock and a gateway in front of it")
    with _started(plan, models_from) as (mock, gateway):
        on_progress(f"storing {plan.edits:,} edits")
        await asyncio.to_thread(store_edits, gateway.url, _EDITED, material.edits(plan.edits))
        contenders = [
            mock,
            Contender(name=BYPASSED, target=gateway.target("empty"), watched=gateway.watched),
            Contender(name=CLASSIFIED, target=gateway.target(_EDITED), watched=gateway.watched),
        ]
        if peer is not None:
            headers = {} if peer.api_key is None else {"authorization": f"Bearer {peer.api_key}"}
            watched = None if peer.pid is None else Watched(peer.pid)
            target = Target(url=peer.url.rstrip("/"), headers=headers)
            contenders.append(Contender(name=PEER, target=target, watched=watched))
        questions = material.everyday_questions()

        def everyday(target: Target, number: int) -> bytes:
            return target.chat(questions[number % len(questions)])

        def large(target: Target, number: int) -> bytes:
            return target.chat(questions[number % len(questions)], padding_bytes=_LARGE_BODY_BYTES)

        on_progress("latency, one client")
        latency = await added_latency(contenders, everyday, count=plan.requests)
        on_progress("bodies of 1 MB")
        large_bodies = await added_latency(contenders, large, count=max(20, plan.requests // 50))
        on_progress("throughput")
        rates = await throughput(contenders, everyday, connections=plan.connections, seconds=plan.seconds)
        on_progress("streams")
        streams = await streaming(contenders, count=max(50, plan.requests // 10))
        on_progress("overload")
        overloaded = await _overloaded(gateway, plan, everyday)
        on_progress("memory")
        used = await memory(contenders[1], everyday, streams=plan.streams, requests=plan.memory_requests)
    return ProxyResult(
        plan=plan,
        latency=latency,
        large_bodies=large_bodies,
        throughput=rates,
        streaming=streams,
        overload=overloaded,
        memory=used,
    )


@contextmanager
def _started(plan: Plan, models_from: Path | None) -> Iterator[tuple[Contender, GatewayProcess]]:
    with (
        tempfile.TemporaryDirectory(prefix="serac-bench-") as folder,
        running_mock(port=plan.mock_port, options=("--gap-ms", f"{plan.event_gap_ms}")) as mock,
        running_gateway(
            Path(folder) / "data", upstream_url=mock.target.url, models_from=models_from
        ) as gateway,
    ):
        yield Contender(name=MOCK, target=mock.target, watched=mock.watched), gateway


async def _overloaded(
    gateway: GatewayProcess, plan: Plan, everyday: Callable[[Target, int], bytes]
) -> Overload:
    prompts = [edit["prompt"] for edit in material.edits(min(plan.edits, 200))]
    target = gateway.target(_EDITED)

    def in_scope(number: int) -> bytes:
        return target.chat(prompts[number % len(prompts)], max_tokens=16)

    def beside(number: int) -> bytes:
        return everyday(target, number)

    answered = await saturated(target, in_scope, connections=2, seconds=plan.seconds)
    alone = await open_loop(target, beside, per_second=20.0, seconds=plan.seconds)
    async with asyncio.TaskGroup() as group:
        shed = group.create_task(
            open_loop(
                target, in_scope, per_second=_OVERLOAD * answered.per_second, seconds=2 * plan.seconds, seed=1
            )
        )
        passed = group.create_task(open_loop(target, beside, per_second=20.0, seconds=2 * plan.seconds))
    return Overload(
        answers_per_second=answered.per_second,
        in_scope=shed.result(),
        beside=passed.result(),
        beside_alone=alone,
    )
