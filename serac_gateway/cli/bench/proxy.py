"""`serac bench proxy`: runs all measurements, on a mock and a gateway that it starts."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from serac_gateway.cli.bench import workload
from serac_gateway.cli.bench.contenders import BYPASSED, CLASSIFIED, MOCK, SPECULATING, Contender, Peer
from serac_gateway.cli.bench.latency import (
    Added,
    FirstToken,
    Streaming,
    Throughput,
    added_latency,
    first_token,
    streaming,
    throughput,
)
from serac_gateway.cli.bench.memory import IdleStreams, Memory, idle_streams, memory
from serac_gateway.cli.bench.overload import Overload, overload
from serac_gateway.cli.bench.processes import GatewayProcess, running_gateway, running_mock
from serac_gateway.cli.bench.targets import Aim, targets
from serac_gateway.cli.bench.wire import Target

_EDITED, _UNEDITED = "bench", "empty"
_LARGE_BODY_BYTES = 1_000_000

OnProgress = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of the measurements."""

    edits: int = 10_000
    requests: int = 2_000
    """Requests of one client, for latencies."""
    seconds: float = 5.0
    """Duration of every saturating load."""
    connections: int = 32
    streams: int = 1_000
    """Number of idle streams."""
    memory_requests: int = 100_000
    event_gap_ms: float = 2.0
    """Pause between two events of the mock's streams."""
    upstream_ms: int = 50
    """Delay of the mock when the time to the first token is measured."""
    mock_port: int = 0
    """0: any free port; a peer needs a fixed one."""
    settings: Mapping[str, str] = {}
    """Settings of the gateway that differ from its defaults: variables without SERAC_."""


class ProxyResult(msgspec.Struct, frozen=True, kw_only=True):
    """All measurements of one run."""

    plan: Plan
    latency: list[Added]
    large_bodies: list[Added]
    throughput: list[Throughput]
    """The mock's own rate is the limit of mock and load together."""
    streaming: list[Streaming]
    first_token: list[FirstToken]
    overload: Overload
    idle_streams: IdleStreams
    memory: Memory
    targets: list[Aim]


async def measured(
    plan: Plan,
    *,
    peer: Peer | None,
    models_from: Path | None,
    store_edits: Callable[[str, str, list[dict[str, str]]], object],
    on_progress: OnProgress,
) -> ProxyResult:
    """Run all measurements.

    `store_edits(url, namespace, edits)` imports edits into a gateway; it runs on a thread.

    Raises:
        BenchError: A process does not start or does not answer.
    """
    others = [] if peer is None else [peer.contender()]
    on_progress("starting the mock and a gateway in front of it")
    with (
        tempfile.TemporaryDirectory(prefix="serac-bench-") as folder,
        running_mock(port=plan.mock_port, options=("--gap-ms", f"{plan.event_gap_ms}")) as mock,
    ):
        direct = Contender(name=MOCK, target=mock.target, watched=mock.watched)

        def started(**settings: str) -> AbstractContextManager[GatewayProcess]:
            return running_gateway(
                Path(folder) / "data",
                upstream_url=mock.target.url,
                models_from=models_from,
                **{**plan.settings, **settings},
            )

        with started() as gateway:
            on_progress(f"{plan.streams:,} idle streams")
            idle = await idle_streams(_bypassed(gateway), _everyday, streams=plan.streams)
            on_progress(f"storing {plan.edits:,} edits")
            await asyncio.to_thread(store_edits, gateway.url, _EDITED, workload.edits(plan.edits))
            gateways = [_bypassed(gateway), _deciding(gateway, CLASSIFIED)]
            contenders = [direct, *gateways, *others]
            on_progress("latency, one client")
            latency = await added_latency(contenders, _everyday, count=plan.requests)
            on_progress("bodies of 1 MB")
            large_bodies = await added_latency(contenders, _large, count=max(20, plan.requests // 50))
            on_progress("throughput")
            rates = await throughput(
                contenders, _everyday, connections=plan.connections, seconds=plan.seconds
            )
            on_progress("streams")
            streams = await streaming(contenders, count=max(50, plan.requests // 10))
            on_progress("first tokens")
            tokens = await _first_tokens(plan, [direct, *gateways])
            on_progress("overload")
            overloaded = await overload(
                gateway.target(_EDITED),
                gateway.target(_UNEDITED),
                _everyday,
                edits=plan.edits,
                seconds=plan.seconds,
            )
            on_progress(f"memory over {plan.memory_requests:,} requests")
            used = await memory(gateways[0], _everyday, requests=plan.memory_requests)
        on_progress("starting again, with routing.speculate")
        with started(ROUTING__SPECULATE="true") as gateway:
            tokens += (await _first_tokens(plan, [direct, _deciding(gateway, SPECULATING)]))[1:]
    return ProxyResult(
        plan=plan,
        latency=latency,
        large_bodies=large_bodies,
        throughput=rates,
        streaming=streams,
        first_token=tokens,
        overload=overloaded,
        idle_streams=idle,
        memory=used,
        targets=targets(
            latency=latency,
            throughput=rates,
            first_token=tokens,
            streaming=streams,
            overload=overloaded,
            idle=idle,
            memory=used,
        ),
    )


async def _first_tokens(plan: Plan, contenders: list[Contender]) -> list[FirstToken]:
    def request(target: Target, number: int) -> bytes:
        return target.chat(_question(number), stream=True, events=2, delay_ms=plan.upstream_ms)

    return await first_token(contenders, request, count=max(50, plan.requests // 10))


def _bypassed(gateway: GatewayProcess) -> Contender:
    return Contender(name=BYPASSED, target=gateway.target(_UNEDITED), watched=gateway.watched)


def _deciding(gateway: GatewayProcess, name: str) -> Contender:
    return Contender(name=name, target=gateway.target(_EDITED), watched=gateway.watched)


def _everyday(target: Target, number: int) -> bytes:
    return target.chat(_question(number))


def _large(target: Target, number: int) -> bytes:
    return target.chat(_question(number), padding_bytes=_LARGE_BODY_BYTES)


_QUESTIONS = workload.everyday_questions()


def _question(number: int) -> str:
    return _QUESTIONS[number % len(_QUESTIONS)]
