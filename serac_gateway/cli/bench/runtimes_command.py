"""The command of runtimes.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from serac_gateway.cli.bench.report import OutOption, bench_errors, latency_cells, say, write_out
from serac_gateway.cli.options import JsonOption
from serac_gateway.cli.terminal import print_json, stdout
from serac_gateway.config.loading import load_config


def runtimes(
    first: Annotated[
        str, typer.Option(help="Device and precision: cpu:int8, cpu:bf16, cuda:bf16, …")
    ] = "cpu:int8",
    second: Annotated[str, typer.Option(help="Those to compare with.")] = "cuda:bf16",
    edits: Annotated[int, typer.Option(min=1, max=10_000, help="Edits in memory.")] = 1_000,
    queries: Annotated[int, typer.Option(min=20, help="To decide on.")] = 10_000,
    threads: Annotated[int, typer.Option(min=1, max=512, help="That decide at once.")] = 2,
    file: Annotated[
        Path | None, typer.Option(help="Your own queries, one a line.", show_default="invented ones")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file; see configs/gateway/.")] = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the decisions of two devices or precisions, and their times; in this process, without HTTP."""
    from serac_gateway.cli.bench.runtimes import bench_queries, compare, read_queries

    with bench_errors():
        texts = bench_queries(edits, queries) if file is None else read_queries(file, queries)
        result = compare(
            load_config(config), (first, second), edits=edits, queries=texts, threads=threads, say=say
        )
    write_out(result, out)
    if as_json:
        print_json(result)
        return
    table = Table("decisions", "median ms", "p95", "p99", "a second", title=f"Among {result.edits:,} edits")
    for times in (result.first, result.second):
        table.add_row(times.name, *latency_cells(times.latencies), f"{times.per_second:,.0f}")
    stdout().print(table)
    disagreeing = result.other_route + result.other_edit
    stdout().print(
        f"{disagreeing:,} of {result.queries:,} decisions differ ({result.other_route} in the route,"
        f" {result.other_edit} in the edit); where they agree, the scope probability differs by at most"
        f" {result.largest_difference:.3f}"
    )
    if result.listed:
        listed = Table("query", result.first.name, result.second.name, title="Disagreements")
        for disagreement in result.listed:
            listed.add_row(disagreement.query, disagreement.first, disagreement.second)
        stdout().print(listed)
