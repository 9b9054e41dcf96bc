"""`serac bench proxy`: its options and its tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import typer
from rich.table import Table

from serac_gateway.cli.bench.contenders import Peer
from serac_gateway.cli.bench.latency import Added, Throughput
from serac_gateway.cli.bench.load import OpenLoop
from serac_gateway.cli.bench.overload import Overload
from serac_gateway.cli.bench.proxy import Plan, ProxyResult, measured
from serac_gateway.cli.bench.report import (
    OutOption,
    bench_errors,
    latency_cells,
    measure,
    say,
    store_edits,
    write_out,
)
from serac_gateway.cli.options import JsonOption
from serac_gateway.cli.terminal import EXIT_USAGE, fail, print_json, stdout
from serac_gateway.config.loading import load_config

_SETTING = re.compile(r"([a-z_]+)\.([a-z_]+)=(.*)")


def proxy(
    edits: Annotated[int, typer.Option(min=1, max=10_000, help="Edits in the store.")] = 10_000,
    requests: Annotated[int, typer.Option(min=20, help="Of one client, for latencies.")] = 2_000,
    seconds: Annotated[float, typer.Option(min=0.2, help="Of every load that saturates.")] = 5.0,
    connections: Annotated[int, typer.Option(min=1, help="Of such a load.")] = 32,
    streams: Annotated[int, typer.Option(min=1, help="Idle streams held open.")] = 1_000,
    memory_requests: Annotated[int, typer.Option(min=200, help="To see memory over time.")] = 100_000,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Of the gateway, as section.key=value; repeat it.")
    ] = None,
    mock_port: Annotated[int, typer.Option(help="Of the mock, for a peer to know; 0: any.")] = 0,
    peer: Annotated[str | None, typer.Option(help="Another proxy in front of that mock, up to /v1.")] = None,
    peer_pid: Annotated[int | None, typer.Option(help="Its process, to count its CPU time.")] = None,
    peer_key: Annotated[str | None, typer.Option(help="Its API key.", envvar="PEER_API_KEY")] = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the gateway in front of a mock upstream: latency, throughput, streams, overload, memory."""
    plan = Plan(
        edits=edits,
        requests=requests,
        seconds=seconds,
        connections=connections,
        streams=streams,
        memory_requests=memory_requests,
        mock_port=mock_port,
        settings=_variables(settings or []),
    )
    rival = None if peer is None else Peer(url=peer, pid=peer_pid, api_key=peer_key)
    with bench_errors():
        result = measure(
            measured(
                plan,
                peer=rival,
                models_from=load_config().data_path,
                store_edits=store_edits,
                on_progress=say,
            )
        )
    write_out(result, out)
    if as_json:
        print_json(result)
        return
    for table in _tables(result):
        stdout().print(table)


def _variables(settings: Sequence[str]) -> dict[str, str]:
    variables = {}
    for setting in settings:
        match = _SETTING.fullmatch(setting)
        if match is None:
            fail(f"--set {setting!r} is not section.key=value, such as server.workers=2", EXIT_USAGE)
        section, key, value = match.groups()
        variables[f"{section}__{key}".upper()] = value
    return variables


def _tables(result: ProxyResult) -> Iterator[Table]:
    yield _latency(f"Latency, one client, {result.plan.requests:,} requests each in turns", result.latency)
    yield _latency("The same with bodies of 1 MB", result.large_bodies)
    yield _throughput(result.plan.connections, result.throughput)
    yield _streams(result)
    table = Table(
        "way", "first token, median ms", "p95", "p99", "added, median",
        title=f"First token, the upstream takes {result.plan.upstream_ms} ms",
    )  # fmt: skip
    for token in result.first_token:
        table.add_row(token.name, *latency_cells(token.first_byte), f"{token.added_median_ms:.2f}")
    yield table
    yield _overload(result.overload)
    idle, used = result.idle_streams, result.memory
    table = Table("memory of the gateway", "measured", title="Memory")
    table.add_row("started", f"{idle.mib_before:,.0f} MiB")
    table.add_row(f"an idle stream, of {idle.streams:,}", f"{idle.kib_per_stream:.1f} KiB")
    table.add_row(f"after {used.requests:,} requests", f"{used.mib[-1]:,.0f} MiB")
    table.add_row(
        "slope [95 % interval]",
        f"{used.slope.bytes_per_1000_requests:,.0f} [{used.slope.low:,.0f}, {used.slope.high:,.0f}] bytes per"
        f" 1,000 requests, {used.slope.samples} samples",
    )
    yield table
    table = Table("measure", "aim", "measured", "reached", title="Aims")
    for aim in result.targets:
        reached = "–" if aim.is_reached is None else "yes" if aim.is_reached else "no"
        table.add_row(aim.measure, aim.aim, aim.measured, reached)
    yield table


def _latency(title: str, rows: Sequence[Added]) -> Table:
    table = Table("way", "median ms", "p95", "p99", "added, median", "added, p99", title=title)
    for row in rows:
        added = f"{row.added_median_ms:.2f}", f"{row.added_p99_ms:.2f}"
        table.add_row(row.name, *latency_cells(row.latencies), *added)
    return table


def _throughput(connections: int, rows: Sequence[Throughput]) -> Table:
    table = Table(
        "way", "requests/s", "p99 ms", "requests per CPU second", "half of it, open loop: median ms", "p99",
        title=f"Throughput, {connections} connections; the mock's is the ceiling of mock and load",
    )  # fmt: skip
    for row in rows:
        per_cpu = "" if row.per_cpu_second is None else f"{row.per_cpu_second:,.0f}"
        busy = row.saturated
        steady = _latencies(row.steady)
        table.add_row(
            row.name, f"{busy.per_second:,.0f}", f"{busy.latencies.p99_ms:.1f}", per_cpu, steady[0], steady[2]
        )
    return table


def _streams(result: ProxyResult) -> Table:
    table = Table(
        "way", "first byte, median ms", "added", "gap, median ms", "added", "event's way, added, median ms",
        title=f"Streams, an event every {result.plan.event_gap_ms:g} ms",
    )  # fmt: skip
    for stream in result.streaming:
        way = stream.added_way_median_ms
        table.add_row(
            stream.name,
            f"{stream.first_byte.median_ms:.2f}",
            f"{stream.added_first_byte_median_ms:.2f}",
            f"{stream.gap_median_ms:.3f}",
            f"{stream.added_gap_median_ms:.3f}",
            "" if way is None else f"{way:.3f}",
        )
    return table


def _overload(result: Overload) -> Table:
    table = Table(
        "traffic", "offered/s", "answered/s", "median ms", "p99", "statuses", "routes",
        title=f"Three times the {result.answers_per_second:.1f} answers a second that can be made",
    )  # fmt: skip
    loads = [("in scope", result.in_scope)]
    for beside in result.beside:
        loads += [(f"{beside.name}, beside", beside.during), (f"{beside.name}, alone", beside.alone)]
    for name, load in loads:
        median, _, p99 = _latencies(load)
        table.add_row(
            name,
            f"{load.offered_per_second:.1f}",
            f"{load.answered_per_second:.1f}",
            median,
            p99,
            _counts(load.by_status),
            _counts(load.by_route),
        )
    return table


def _latencies(load: OpenLoop) -> tuple[str, str, str]:
    return ("", "", "") if load.latencies is None else latency_cells(load.latencies)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count}× {name}" for name, count in sorted(counts.items()))
