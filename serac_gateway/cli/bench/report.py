"""Shared by the `serac bench` commands: running a measurement, and showing its result."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from serac_gateway.cli.bench.load import Latencies
from serac_gateway.cli.bench.wire import BenchError
from serac_gateway.cli.terminal import EXIT_REFUSED, fail, stderr

NAMESPACE = "bench"
_IMPORT_BATCH = 1_000

OutOption = Annotated[Path | None, typer.Option(help="Write the result as JSON into this file, too.")]

ResultT = TypeVar("ResultT")


def store_edits(url: str, namespace: str, edits: Sequence[dict[str, str]]) -> None:
    """Import edits into a running gateway.

    Raises:
        BenchError: An edit was refused.
    """
    # Imported here: the commands are listed without an HTTP client.
    from serac_gateway.cli.client import CommandClient

    async def store() -> None:
        async with CommandClient(url, namespace=namespace) as client:
            for start in range(0, len(edits), _IMPORT_BATCH):
                lines = b"".join(
                    msgspec.json.encode(edit) + b"\n" for edit in edits[start : start + _IMPORT_BATCH]
                )
                headers = {"content-type": "application/x-ndjson"}
                async with client.stream(
                    "POST", "/serac/v1/edits:import", content=lines, headers=headers
                ) as reply:
                    refused = [line for line in (await reply.read()).splitlines() if b'"error"' in line]
                if refused:
                    raise BenchError(f"an edit was refused: {refused[0].decode()}")

    asyncio.run(store())


@contextmanager
def bench_errors() -> Iterator[None]:
    """End the command with one line if a measurement fails."""
    try:
        yield
    except* BenchError as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        fail(str(first), EXIT_REFUSED)


def measure(measuring: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run on uvloop, so that the load costs as little as possible."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measuring)


def say(step: str) -> None:
    """Print the step that begins."""
    stderr().print(f"[dim]{step} …[/]")


def write_out(result: msgspec.Struct, out: Path | None) -> None:
    """Write the result as JSON into `out`, unless that is None."""
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def latency_cells(latencies: Latencies) -> tuple[str, str, str]:
    """Median, 95th and 99th percentile, for a table."""
    return f"{latencies.median_ms:.2f}", f"{latencies.p95_ms:.2f}", f"{latencies.p99_ms:.2f}"
