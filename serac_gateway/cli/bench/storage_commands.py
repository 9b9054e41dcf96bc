"""`serac bench import`, `serac bench start`, `serac bench write` and `serac bench index`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from serac_gateway.cli.bench.processes import running_gateway, running_mock
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
from serac_gateway.cli.terminal import print_json, stdout
from serac_gateway.config.loading import load_config

if TYPE_CHECKING:  # numpy need not be loaded to list the commands
    from serac_gateway.models.encoders.base import Encoder

ManyEditsOption = Annotated[int, typer.Option(min=1, max=130_000, help="Edits in the store.")]


def import_edits(edits: ManyEditsOption = 10_000, out: OutOption = None, as_json: JsonOption = False) -> None:
    """Measure an import, beside it the encoder alone, and the gateway's memory."""
    from serac_gateway.cli.bench.storage import imported

    config = load_config()
    with bench_errors(), tempfile.TemporaryDirectory(prefix="serac-bench-") as folder, running_mock() as mock:
        say("starting a gateway")
        encoder = _encoder()
        with running_gateway(
            Path(folder) / "data", upstream_url=mock.target.url, models_from=config.data_path
        ) as gateway:
            say(f"importing {edits:,} edits, in turns with the encoder alone")
            result = imported(
                gateway, encoder, edits, threads=config.models.decision_threads, store_edits=store_edits
            )
    write_out(result, out)
    if as_json:
        print_json(result)
        return
    table = Table("import", "measured", title=f"Import of {edits:,} edits")
    table.add_row("rate", f"{result.edits_per_second:,.0f} edits/s, {result.seconds:,.1f} s in all")
    table.add_row("encoder alone", f"{result.encoder_edits_per_second:,.0f} edits/s")
    table.add_row("share", f"{result.share_of_encoder:.0%}")
    table.add_row("memory before", f"{result.resident_before_mib:,.0f} MiB")
    table.add_row("memory at its peak", f"{result.peak_resident_mib:,.0f} MiB")
    stdout().print(table)


def start(edits: ManyEditsOption = 10_000, out: OutOption = None, as_json: JsonOption = False) -> None:
    """Measure a start until /health/ready answers 200, with stored edits and without."""
    from serac_gateway.cli.bench.storage import started

    with bench_errors(), tempfile.TemporaryDirectory(prefix="serac-bench-") as folder:
        say(f"storing {edits:,} edits, and starting")
        result = started(Path(folder), _encoder(), edits, models_from=load_config().data_path)
    write_out(result, out)
    if as_json:
        print_json(result)
        return
    table = Table("start", "until ready", title="Start of a gateway")
    table.add_row("without edits", f"{result.seconds_without_edits:.1f} s")
    remark = "edits were encoded anew" if result.encoded_anew else "nothing was encoded"
    table.add_row(f"with {edits:,} edits", f"{result.seconds:.1f} s, {remark}")
    stdout().print(table)


def write(
    edits: ManyEditsOption = 10_000,
    writes: Annotated[int, typer.Option(min=1, max=1_000, help="One after the other.")] = 200,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a single write until it is in force in the same process, with fsync always."""
    from serac_gateway.cli.bench.storage import written

    with bench_errors(), tempfile.TemporaryDirectory(prefix="serac-bench-") as folder:
        say(f"storing {edits:,} edits, and adding {writes:,} more")
        result = measure(written(Path(folder), _encoder(), edits, writes=writes))
    write_out(result, out)
    if as_json:
        print_json(result)
        return
    table = Table("a write", "median ms", "p95", "p99", title=f"Writes beside {edits:,} edits")
    table.add_row("beyond encoding", *latency_cells(result.beyond_encoding))
    table.add_row("encoding", *latency_cells(result.encoding))
    stdout().print(table)


def index(
    sizes: Annotated[str, typer.Option(help="Numbers of edits: 1k,100k,1M.")] = "1k,100k",
    seconds: Annotated[
        float, typer.Option(min=1.0, help="Of searches, quiet, and as long beside writes.")
    ] = 20.0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the index alone, as [index] configures it, with three vectors an edit."""
    from serac_gateway.cli.bench.edit_index import IndexResults, SampleVectors, measured

    counts = [_edit_count(size) for size in sizes.split(",")]
    with bench_errors():
        say("encoding texts that the vectors are made from")
        sample = SampleVectors(_encoder())
        config = load_config().index
        result = IndexResults(sizes=list(measured(counts, config, sample, say, seconds=seconds)))
    write_out(result, out)
    if as_json:
        print_json(result)
        return
    table = Table(
        "edits", "build s", "MiB (peak)", "search ms", "p99", "beside writes ms", "p99", "write ms", "p99",
        "recall@8: stored", "neighbours", "unrelated",
    )  # fmt: skip
    for size in result.sizes:
        table.add_row(
            f"{size.edits:,}", f"{size.build_s:.1f}", f"{size.memory_mib:,.0f} ({size.peak_mib:,.0f})",
            f"{size.quiet.median_ms:.2f}", f"{size.quiet.p99_ms:.2f}",
            f"{size.writing.median_ms:.2f}", f"{size.writing.p99_ms:.2f}",
            f"{size.write.median_ms:.2f}", f"{size.write.p99_ms:.2f}",
            f"{size.recall.stored:.4f}", f"{size.recall.neighbours:.4f}", f"{size.recall.unrelated:.4f}",
        )  # fmt: skip
    stdout().print(table)


def _edit_count(text: str) -> int:
    number, unit = text.strip().rstrip("kM"), text.strip()[-1:]
    if not number.isdecimal() or not int(number):
        raise typer.BadParameter(
            f"{text!r} is no number of edits; write 1000, 1k or 1M", param_hint="--sizes"
        )
    return int(number) * {"k": 1_000, "M": 1_000_000}.get(unit, 1)


def _encoder() -> Encoder:
    from serac_gateway.models.loading import open_decision_models

    return open_decision_models(load_config())[0]
