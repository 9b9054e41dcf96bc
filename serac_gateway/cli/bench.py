"""`serac bench …`: what the proxy adds, what a decision takes, what an answer takes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from serac_gateway.bench import material
from serac_gateway.bench.answers import answers, decisions
from serac_gateway.bench.processes import GatewayProcess, running_gateway, running_mock
from serac_gateway.bench.proxy import Peer, Plan, ProxyResult, measured
from serac_gateway.cli.bench_runs import (
    NAMESPACE,
    OutOption,
    bench_errors,
    latency_cells,
    measure,
    say,
    store_edits,
    write_out,
)
from serac_gateway.cli.console import print_json, stdout
from serac_gateway.cli.options import JsonOption
from serac_gateway.config_loading import load_config

bench_app = typer.Typer(
    no_args_is_help=True,
    help="Measure the gateway here, in processes of its own. Compare within a run, not between runs.",
)

EditsOption = Annotated[int, typer.Option(min=1, max=10_000, help="Edits in the store.")]


@bench_app.command()
def proxy(
    edits: EditsOption = 10_000,
    requests: Annotated[int, typer.Option(min=20, help="Of one client, for latencies.")] = 2_000,
    seconds: Annotated[float, typer.Option(min=0.2, help="Of every load that saturates.")] = 5.0,
    connections: Annotated[int, typer.Option(min=1, help="Of such a load.")] = 32,
    streams: Annotated[int, typer.Option(min=1, help="Idle streams held open.")] = 1_000,
    memory_requests: Annotated[int, typer.Option(min=200, help="To see memory over time.")] = 100_000,
    mock_port: Annotated[int, typer.Option(help="Of the mock, for a peer to know; 0: any.")] = 0,
    peer: Annotated[str | None, typer.Option(help="Another proxy in front of that mock, up to /v1.")] = None,
    peer_pid: Annotated[int | None, typer.Option(help="Its process, to count its CPU time.")] = None,
    peer_key: Annotated[str | None, typer.Option(help="Its API key.", envvar="SERAC_PEER_KEY")] = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the gateway adds to a mock upstream: latency, throughput, streams, overload, memory."""
    plan = Plan(
        edits=edits,
        requests=requests,
        seconds=seconds,
        connections=connections,
        streams=streams,
        memory_requests=memory_requests,
        mock_port=mock_port,
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
    for table in _proxy_tables(result):
        stdout().print(table)


@bench_app.command()
def decision(
    edits: EditsOption = 10_000,
    requests: Annotated[int, typer.Option(min=20, help="Of each sort.")] = 500,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a decision takes, over HTTP: near nothing, and near an edit."""
    with bench_errors(), _gateway_with(edits) as gateway:
        say("deciding")
        result = measure(decisions(gateway.target(NAMESPACE), edits=edits, count=requests))
    write_out(result, out)
    if as_json:
        print_json(result)
        return
    table = Table("a call that decides", "median ms", "p95", "p99", title=f"Decisions among {edits:,} edits")
    for name, found in (
        ("nothing (HTTP itself)", result.nothing),
        ("an everyday question", result.everyday),
        ("a question near an edit", result.near),
    ):
        table.add_row(name, *latency_cells(found))
    stdout().print(table)


@bench_app.command()
def answer(
    edits: EditsOption = 200,
    requests: Annotated[int, typer.Option(min=5, help="In-scope questions.")] = 100,
    seconds: Annotated[float, typer.Option(min=0.2, help="With four clients at once.")] = 10.0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """What an answer of the counterfactual model takes, over HTTP, decision included."""
    with bench_errors(), _gateway_with(edits) as gateway:
        say("asking")
        stored = material.edits(edits)
        result = measure(answers(gateway.target(NAMESPACE), stored, count=requests, seconds=seconds))
    write_out(result, out)
    if as_json:
        print_json(result)
        return
    table = Table("answers", "median ms", "p95", "p99", title=f"Answers among {edits:,} edits")
    table.add_row("first byte, streamed", *latency_cells(result.first_byte))
    table.add_row("whole", *latency_cells(result.whole))
    table.add_row("whole, four clients at once", *latency_cells(result.side_by_side.latencies))
    stdout().print(table)
    stdout().print(f"{result.side_by_side.per_second:.1f} answers a second to four clients")


@contextmanager
def _gateway_with(edits: int) -> Iterator[GatewayProcess]:
    say("starting a mock and a gateway in front of it")
    with (
        tempfile.TemporaryDirectory(prefix="serac-bench-") as folder,
        running_mock() as mock,
        running_gateway(
            Path(folder) / "data", upstream_url=mock.target.url, models_from=load_config().data_path
        ) as gateway,
    ):
        say(f"storing {edits:,} edits")
        store_edits(gateway.url, NAMESPACE, material.edits(edits))
        yield gateway


def _proxy_tables(result: ProxyResult) -> Iterator[Table]:
    for title, rows in (
        (f"Latency, one client, {result.plan.requests:,} requests each in turns", result.latency),
        ("The same with bodies of 1 MB", result.large_bodies),
    ):
        table = Table("way", "median ms", "p95", "p99", "added, median", "added, p99", title=title)
        for row in rows:
            added = f"{row.added_median_ms:.2f}", f"{row.added_p99_ms:.2f}"
            table.add_row(row.name, *latency_cells(row.latencies), *added)
        yield table
    table = Table(
        "way", "requests/s", "p99 ms", "requests per CPU second",
        title=f"Throughput, {result.plan.connections} connections",
    )  # fmt: skip
    for rate in result.throughput:
        per_cpu = "" if rate.per_cpu_second is None else f"{rate.per_cpu_second:,.0f}"
        busy = rate.saturated
        table.add_row(rate.name, f"{busy.per_second:,.0f}", f"{busy.latencies.p99_ms:.1f}", per_cpu)
    yield table
    table = Table("way", "first byte, median ms", "added", "gap, median ms", "added", title="Streams")
    for stream in result.streaming:
        table.add_row(
            stream.name,
            f"{stream.first_byte.median_ms:.2f}",
            f"{stream.added_first_byte_median_ms:.2f}",
            f"{stream.gap_median_ms:.3f}",
            f"{stream.added_gap_median_ms:.3f}",
        )
    yield table
    over = result.overload
    table = Table(
        "traffic", "offered/s", "answered/s", "median ms", "p99", "statuses",
        title=f"Three times the {over.answers_per_second:.1f} answers a second that can be made",
    )  # fmt: skip
    for name, found in (
        ("in scope", over.in_scope),
        ("out of scope, beside", over.beside),
        ("out of scope, alone", over.beside_alone),
    ):
        cells = ("", "", "") if found.latencies is None else latency_cells(found.latencies)
        statuses = ", ".join(f"{count}× {status}" for status, count in sorted(found.by_status.items()))
        table.add_row(
            name,
            f"{found.offered_per_second:.1f}",
            f"{found.answered_per_second:.1f}",
            cells[0],
            cells[2],
            statuses,
        )
    yield table
    used = result.memory
    table = Table("memory of the gateway", "measured", title="Memory")
    table.add_row("at rest", f"{used.at_rest:,.0f} MiB")
    table.add_row(f"an idle stream, of {used.streams:,}", f"{used.kib_per_idle_stream:.1f} KiB")
    table.add_row(f"after {used.requests:,} requests", f"{used.after_requests[-1]:,.0f} MiB")
    table.add_row("slope, second half", f"{used.kib_per_1000_requests:.1f} KiB per 1,000 requests")
    yield table
