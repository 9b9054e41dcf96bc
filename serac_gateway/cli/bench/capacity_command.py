"""`serac bench capacity`: what a number of edits and requests takes, computed from measured figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table

from serac_gateway.cli.bench.report import OutOption, write_out
from serac_gateway.cli.options import JsonOption
from serac_gateway.cli.terminal import EXIT_USAGE, fail, print_json, stdout

if TYPE_CHECKING:  # numpy need not be loaded to list the commands
    from serac_gateway.cli.bench.capacity import Figures

_COUNT = re.compile(r"(\d+(?:\.\d+)?)([kM]?)")
_TIMES = {"": 1, "k": 1_000, "M": 1_000_000}
_MOST_EDITS, _MOST_REQUESTS = 1_000_000_000, 10_000_000


def capacity(
    edits: Annotated[str, typer.Option(help="In all namespaces: 500, 10k, 1.5M.")] = "100k",
    qps: Annotated[str, typer.Option(help="Requests a second.")] = "100",
    namespace_edits: Annotated[str, typer.Option(help="Edits of the largest namespace.")] = "10k",
    writes: Annotated[float, typer.Option(min=0.0, help="Edits written a second.")] = 1.0,
    forms: Annotated[float, typer.Option(min=1.0, help="Wordings of an edit that are indexed.")] = 2.0,
    decided: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of requests near edits.")] = 1.0,
    cores: Annotated[int, typer.Option(min=1, max=256, help="Of a gateway.")] = 2,
    memory_gib: Annotated[float, typer.Option(min=1.0, help="Of a gateway.")] = 16.0,
    p99_ms: Annotated[float, typer.Option(min=1.0, help="Of a decision, with its wait.")] = 150.0,
    decisions: Annotated[
        Path | None, typer.Option(help="What `serac bench decision --out` wrote on your machine.")
    ] = None,
    search_ms: Annotated[float | None, typer.Option(min=0.0, help="Of a search, as measured.")] = None,
    gpu_decision_ms: Annotated[
        float | None, typer.Option(min=0.0001, help="Time of a card for a decision, as measured.")
    ] = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute gateways, memory, cores and replication for a load, and replay the queue of a gateway."""
    from serac_gateway.cli.bench.capacity import Demand, Figures, planned

    figures = Figures(search_ms=search_ms, gpu_decision_ms=gpu_decision_ms)
    if decisions is not None:
        figures = _with_decisions(figures, decisions)
    demand = Demand(
        edits=_count(edits, "--edits", most=_MOST_EDITS),
        largest_namespace=_count(namespace_edits, "--namespace-edits", most=_MOST_EDITS),
        requests_per_second=_count(qps, "--qps", most=_MOST_REQUESTS),
        decided=decided,
        writes_per_second=writes,
        forms=forms,
        cores=cores,
        memory_gib=memory_gib,
        p99_ms=p99_ms,
    )
    try:
        plan = planned(demand, figures)
    except ValueError as error:
        fail(str(error), EXIT_USAGE)
    write_out(plan, out)
    if as_json:
        print_json(plan)
        return
    table = Table("what", "how much", "how known", title=f"{edits} edits, {qps} requests/s")
    rows = (
        ("gateways", f"{plan.gateways:,} of {cores} cores, in {plan.groups:,} installation(s)", "computed"),
        ("memory of a gateway", f"{plan.gateway_memory_gib:,.1f} GiB", "computed"),
        ("cards in place of cores that decide", "-" if plan.gpus is None else f"{plan.gpus:,}", "computed"),
        ("memory of a store", f"{plan.store_memory_gib:,.1f} GiB", "computed"),
        ("a search", f"{plan.search_ms:,.2f} ms", "computed" if search_ms is None else "given"),
        ("a request's work, mean", f"{plan.decision_ms:,.1f} ms", "replayed from measured"),
        ("with its wait, median", f"{plan.waiting.p50_s * 1_000:,.1f} ms", "simulated"),
        ("with its wait, p99", f"{plan.waiting.p99_s * 1_000:,.1f} ms", "simulated"),
        ("wait, mean", f"{plan.waiting.mean_wait_s * 1_000:,.2f} ms", "simulated"),
        ("wait, mean, by formula", f"{plan.mean_wait_by_formula_ms:,.2f} ms", "computed"),
        ("use of a gateway's cores", f"{plan.waiting.utilisation:.0%}", "computed"),
        ("a core of each gateway, for writes", f"{plan.replication_cpu:.1%}", "computed"),
        ("replication lag", f"{plan.replication_lag_ms:,.1f} ms", "computed"),
        ("use of a store's commits", f"{plan.commits_share:.1%}", "computed"),
    )
    for row in rows:
        table.add_row(*row)
    stdout().print(table)
    for problem in plan.problems:
        stdout().print(f"! {problem}")


def _count(text: str, option: str, *, most: int) -> int:
    """The number that `text` says: `500`, `10k`, `1.5M`."""
    match = _COUNT.fullmatch(text)
    number = 0 if match is None else round(float(match[1]) * _TIMES[match[2]])
    if number < 1:
        fail(f"{option} {text!r} is no number of at least 1; write 500, 10k or 1.5M", EXIT_USAGE)
    if number > most:
        fail(f"{option} {text} is more than {most:,}, up to which the figures say anything", EXIT_USAGE)
    return number


def _with_decisions(figures: Figures, path: Path) -> Figures:
    from serac_gateway.cli.bench.decisions import DecisionResult
    from serac_gateway.cli.bench.queueing import Distribution

    try:
        measured = msgspec.json.decode(path.read_bytes(), type=DecisionResult)
    except (OSError, msgspec.MsgspecError) as error:
        fail(
            f"{str(path)!r} is not what `serac bench decision --out` writes: {error}; run that, and give its"
            " file",
            EXIT_USAGE,
        )
    everyday, near = (
        Distribution(median_ms=each.median_ms, p95_ms=each.p95_ms, p99_ms=each.p99_ms, count=each.count)
        for each in (measured.everyday, measured.near)
    )
    return msgspec.structs.replace(figures, everyday=everyday, near=near, at_edits=measured.edits)
