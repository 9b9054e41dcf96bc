"""`serac bench …`: the overhead of the proxy, the time of decisions, answers, imports and starts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from serac_gateway.cli.bench import workload
from serac_gateway.cli.bench.decisions import answers, decisions
from serac_gateway.cli.bench.guard import guard
from serac_gateway.cli.bench.hostile import hostile_load
from serac_gateway.cli.bench.processes import GatewayProcess, running_gateway, running_mock
from serac_gateway.cli.bench.proxy_command import proxy
from serac_gateway.cli.bench.report import (
    NAMESPACE,
    OutOption,
    bench_errors,
    latency_cells,
    measure,
    say,
    store_edits,
    write_out,
)
from serac_gateway.cli.bench.runtimes_command import runtimes
from serac_gateway.cli.bench.targets import Aim
from serac_gateway.cli.options import JsonOption
from serac_gateway.cli.terminal import print_json, stdout
from serac_gateway.config.loading import load_config

bench_app = typer.Typer(
    no_args_is_help=True,
    help="Measure the gateway here, in processes of its own. Compare within a run, not between runs.",
)

EditsOption = Annotated[int, typer.Option(min=1, max=10_000, help="Edits in the store.")]


bench_app.command()(proxy)
bench_app.command()(guard)
bench_app.command()(runtimes)


@bench_app.command()
def decision(
    edits: EditsOption = 10_000,
    requests: Annotated[int, typer.Option(min=20, help="Of each sort.")] = 500,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the time of a decision, over HTTP: for questions near no edit, and near an edit."""
    with bench_errors(), _gateway_with(edits) as gateway:
        say("deciding")
        result = measure(decisions(gateway.target(NAMESPACE), edits=edits, count=requests))
    write_out(result, out)
    if as_json:
        print_json(result)
        return
    table = Table("a call that decides", "median ms", "p95", "p99", title=f"Decisions among {edits:,} edits")
    for name, latencies in (
        ("nothing (HTTP itself)", result.nothing),
        ("an everyday question", result.everyday),
        ("a question near an edit", result.near),
    ):
        table.add_row(name, *latency_cells(latencies))
    stdout().print(table)


@bench_app.command()
def answer(
    edits: EditsOption = 200,
    requests: Annotated[int, typer.Option(min=5, help="In-scope questions.")] = 100,
    seconds: Annotated[float, typer.Option(min=0.2, help="With four clients at once.")] = 10.0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the time of an answer of the counterfactual model, over HTTP, decision included."""
    with bench_errors(), _gateway_with(edits) as gateway:
        say("asking")
        stored = workload.edits(edits)
        result = measure(answers(gateway.target(NAMESPACE), stored, count=requests, seconds=seconds))
    write_out(result, out)
    if as_json:
        print_json(result)
        return
    table = Table("answers", "median ms", "p95", "p99", title=f"Answers among {edits:,} edits")
    table.add_row("first byte, streamed", *latency_cells(result.first_byte))
    table.add_row("whole", *latency_cells(result.whole))
    table.add_row("whole, four clients at once", *latency_cells(result.side_by_side.latencies))
    for burst in (result.together, result.crowd):
        table.add_row(f"first byte, {burst.clients} at the same moment", *latency_cells(burst.first_byte))
        table.add_row(f"whole, {burst.clients} at the same moment", *latency_cells(burst.whole))
    stdout().print(table)
    stdout().print(f"{result.side_by_side.per_second:.1f} answers a second to four clients")
    for burst in (result.together, result.crowd):
        answered = burst.by_route.get("counterfactual", 0)
        rest = burst.clients * burst.rounds - answered
        stdout().print(
            f"{burst.clients} at the same moment: the last first byte came {burst.last_by_first:.2f} times as"
            f" late as the first; {answered} answered here, {rest} turned away"
        )


@bench_app.command()
def hostile(
    scale: Annotated[float, typer.Option(min=0.001, max=1.0, help="Share of each attack's size.")] = 1.0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how long requests made to do harm stop everything else, and how much memory they take."""
    with bench_errors(), _gateway_with(10) as gateway:
        result = measure(
            hostile_load(gateway.target(NAMESPACE), gateway.watched, scale=scale, on_progress=say)
        )
    write_out(result, out)
    if as_json:
        print_json(result)
        return
    title = (
        f"{result.idle_mib:.0f} MiB when idle; without attacks the longest stall was"
        f" {result.quiet_stall_ms:.0f} ms; the machine's load {result.load_before:.1f} before,"
        f" {result.load_after:.1f} after"
    )
    table = Table("attack", "replies", "took s", "longest stall ms", "memory above idle MiB", title=title)
    for cost in result.costs:
        replies = ", ".join(f"{count} × {status}" for status, count in cost.statuses.items())
        cells = (f"{cost.took_s:.1f}", f"{cost.longest_stall_ms:.0f}", f"{cost.growth_mib:.0f}")
        table.add_row(cost.name, replies, *cells)
    stdout().print(table)
    for aim in result.aims:
        stdout().print(f"{aim.measure}: {aim.measured}, aim {aim.aim}: {_outcome(aim)}")


def _outcome(aim: Aim) -> str:
    return "reached" if aim.is_reached else "missed"


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
        store_edits(gateway.url, NAMESPACE, workload.edits(edits))
        yield gateway
