"""The aims of the proxy, and whether a run reached them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from serac_gateway.cli.bench.contenders import BYPASSED, CLASSIFIED, PEER, SPECULATING
from serac_gateway.cli.bench.latency import Added, FirstToken, Streaming, Throughput
from serac_gateway.cli.bench.memory import IdleStreams, Memory
from serac_gateway.cli.bench.overload import Overload

_RowT = TypeVar("_RowT", Added, FirstToken, Streaming, Throughput)


class Aim(msgspec.Struct, frozen=True, kw_only=True):
    """One aim and its measurement."""

    measure: str
    aim: str
    measured: str
    is_reached: bool | None
    """None: the run had no peer to compare with."""


def targets(
    *,
    latency: Sequence[Added],
    throughput: Sequence[Throughput],
    first_token: Sequence[FirstToken],
    streaming: Sequence[Streaming],
    overload: Overload,
    idle: IdleStreams,
    memory: Memory,
) -> list[Aim]:
    """Every aim, judged by the measurements."""
    return [
        *_latency(latency),
        *_throughput(throughput),
        _at_most("added time to first token, speculating, median",
                 _required(first_token, SPECULATING).added_median_ms, 1.0, "ms"),
        *(
            _at_most(f"added gap between streamed tokens, median: {name}",
                     _required(streaming, name).added_gap_median_ms * 1_000, 100.0, "µs")
            for name in (BYPASSED, CLASSIFIED)
        ),
        _at_most(f"memory of an idle stream, of {idle.streams:,}", idle.kib_per_stream, 50.0, "KiB"),
        _growth(memory),
        *_overload(overload),
    ]  # fmt: skip


def _latency(rows: Sequence[Added]) -> list[Aim]:
    bypassed, classified, peer = _required(rows, BYPASSED), _required(rows, CLASSIFIED), _row(rows, PEER)
    aims = [
        _at_most("added latency, bypassed, median", bypassed.added_median_ms, 0.6, "ms"),
        _at_most("added latency, bypassed, p99", bypassed.added_p99_ms, 3.0, "ms"),
        _at_most("added latency, classifying, median", classified.added_median_ms, 5.0, "ms"),
    ]
    for measure, row, aim in (
        ("added latency, bypassed: share of the peer's", bypassed, 1 / 8),
        ("added latency, classifying: share of the peer's", classified, 1.0),
    ):
        share = None if peer is None else row.added_median_ms / peer.added_median_ms
        aims.append(_judged(measure, f"≤ {aim:g}", share, "{:.3f}", share is not None and share <= aim))
    return aims


def _throughput(rows: Sequence[Throughput]) -> list[Aim]:
    peer = _row(rows, PEER)
    per_core = times = None
    mine, theirs = _required(rows, BYPASSED).per_cpu_second, None if peer is None else peer.per_cpu_second
    if mine is not None and theirs is not None:
        per_core = mine / theirs
    if peer is not None:
        times = _required(rows, CLASSIFIED).saturated.per_second / peer.saturated.per_second
    return [
        _judged("throughput per core, bypassed: times the peer's", "≥ 20", per_core, "{:.1f}",
                per_core is not None and per_core >= 20),
        _judged("throughput, classifying: times the peer's", "≥ 3", times, "{:.1f}",
                times is not None and times >= 3),
    ]  # fmt: skip


def _growth(used: Memory) -> Aim:
    slope = used.slope
    return Aim(
        measure=f"memory over {used.requests:,} requests, slope",
        aim="0 within its 95 % interval",
        measured=f"{slope.bytes_per_1000_requests:,.0f} [{slope.low:,.0f}, {slope.high:,.0f}] bytes per 1,000"
        " requests",
        is_reached=slope.is_indistinguishable_from_zero,
    )


def _overload(result: Overload) -> list[Aim]:
    judged = []
    for beside in result.beside:
        share = beside.during.answered_per_second / beside.during.offered_per_second
        judged.append(
            _judged(f"overload: of the traffic beside, {beside.name}, answered", "≥ 95 % of what is offered",
                    share, "{:.0%}", share >= 0.95)
        )  # fmt: skip
    loads = [result.in_scope, *(beside.during for beside in result.beside)]
    lost = sum(load.by_status.get("none", 0) for load in loads)
    judged.append(
        Aim(measure="overload: requests without a status", aim="0", measured=f"{lost}", is_reached=not lost)
    )
    return judged


def _at_most(measure: str, value: float, aim: float, unit: str) -> Aim:
    return Aim(
        measure=measure, aim=f"≤ {aim:g} {unit}", measured=f"{value:.2f} {unit}", is_reached=value <= aim
    )


def _judged(measure: str, aim: str, value: float | None, form: str, is_reached: bool) -> Aim:
    if value is None:
        return Aim(measure=measure, aim=aim, measured="no peer", is_reached=None)
    return Aim(measure=measure, aim=aim, measured=form.format(value), is_reached=is_reached)


def _row(rows: Sequence[_RowT], name: str) -> _RowT | None:
    return next((row for row in rows if row.name == name), None)


def _required(rows: Sequence[_RowT], name: str) -> _RowT:
    row = _row(rows, name)
    assert row is not None
    return row
