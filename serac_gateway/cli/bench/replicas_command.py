"""`serac bench replicas`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from serac_gateway.cli.bench.report import OutOption, bench_errors, latency_cells, measure, say, write_out
from serac_gateway.cli.options import JsonOption
from serac_gateway.cli.terminal import EXIT_REFUSED, EXIT_USAGE, fail, print_json, stdout


def follow_writes(
    count: Annotated[int, typer.Option("--replicas", min=1, max=64, help="Followers, a process each.")] = 4,
    per_second: Annotated[float, typer.Option(min=0.1, help="Writes due in a second.")] = 1_000.0,
    per_commit: Annotated[int, typer.Option(min=1, max=20, help="Writes in a commit.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.5, help="How long.")] = 60.0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how far gateways on one store lag behind a steady rate of writes, and whether they end equal.

    Writes go straight to the store, with random vectors: most additions, a quarter changes, some retirements.
    """
    from serac_gateway.cli.bench.replicas import replicated

    if per_second * seconds > 130_000:
        fail(f"{per_second * seconds:,.0f} writes are more than the 130,000 there are: lower one", EXIT_USAGE)
    with bench_errors(), tempfile.TemporaryDirectory(prefix="serac-bench-") as folder:
        say(f"{count} replicas, {per_second:,.0f} writes/s for {seconds:g} s")
        result = measure(
            replicated(
                Path(folder) / "valkey",
                replicas=count,
                per_second=per_second,
                per_commit=per_commit,
                seconds=seconds,
                quiet_s=5.0,
            )
        )
    write_out(result, out)
    if as_json:
        print_json(result)
        return
    table = Table("what", "median ms", "p95", "p99", title=f"{count} replicas of {result.edits:,} edits")
    table.add_row("a write, until it is acknowledged", *latency_cells(result.commit))
    table.add_row("from there until it is in force in a replica", *latency_cells(result.lag))
    table.add_row("a search before the writes", *latency_cells(result.quiet_search))
    table.add_row("a search during the writes", *latency_cells(result.busy_search))
    stdout().print(table)
    stdout().print(
        f"{result.writes:,} writes in {result.seconds:.1f} s, {result.written_per_second:,.0f} a second;"
        f" the longest lag {result.longest_lag_ms:,.0f} ms;"
        f" {result.replica_cpu_ms:.2f} ms of CPU time for each write in each replica;"
        f" {'all replicas are equal' if result.all_equal else 'REPLICAS DIFFER'}"
    )
    if not result.all_equal:
        fail("replicas differ from what the store holds", EXIT_REFUSED)
