"""`serac demo`: shows in one table how edits take effect in front of a real language model."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from serac_gateway.cli.demo_walk import Line, load_demo, request_count, walk
from serac_gateway.cli.serve import serve_gateway
from serac_gateway.cli.terminal import EXIT_REFUSED, print_json, run, stderr, stdout


def demo(*, once: bool, url: str | None, data_dir: Path | None, port: int, as_json: bool) -> None:
    """Run the demo on the gateway at `url`, or on a new one, which goes on serving unless `once`."""
    if url is not None:
        raise typer.Exit(_walk_and_show(url.rstrip("/"), as_json=as_json, with_key=True))
    exit_codes: list[int] = []

    def walk_beside_the_server(address: str) -> None:
        try:
            # A key in the environment is for another gateway.
            exit_codes.append(_walk_and_show(address, as_json=as_json, with_key=False))
        except typer.Exit as ended:
            exit_codes.append(ended.exit_code)
        if once:
            os.kill(os.getpid(), signal.SIGTERM)  # as an operator ends the server
        else:
            stderr().print(
                f"serving on [bold]{address}/v1[/] until Ctrl-C; open [bold]{address}/console[/], or try"
                " `serac ask --namespace demo …`",
                soft_wrap=True,
            )

    serve_gateway(
        config_file=None,
        overrides={
            "data_dir": None if data_dir is None else str(data_dir),
            "server": {"port": port},
            "logging": {"level": "warning"},
        },
        on_ready=lambda address: threading.Thread(
            target=walk_beside_the_server, args=(address,), name="demo", daemon=True
        ).start(),
    )
    if once:
        raise typer.Exit(exit_codes[0] if exit_codes else EXIT_REFUSED)


def _walk_and_show(url: str, *, as_json: bool, with_key: bool) -> int:
    """Run the demo, and return the exit code: 0 if every line is as it should be."""
    lines = run(_collected(url, with_key=with_key))
    wrong = [line for line in lines if line.problem]
    if as_json:
        print_json({"lines": lines, "wrong": len(wrong)})
    else:
        out = stdout()
        out.print(_table(lines))
        remark = f"{len(wrong)} lines are not" if wrong else f"all {len(lines)} lines are"
        out.print(f"[{'red' if wrong else 'green'}]{remark} as they should be[/]")
    return EXIT_REFUSED if wrong else 0


async def _collected(url: str, *, with_key: bool) -> list[Line]:
    bar = Progress(
        TextColumn("asking the models"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=stderr(),
        transient=True,
        disable=not stderr().is_terminal,
    )
    with bar:
        task = bar.add_task("", total=request_count(load_demo()[1]))
        return [line async for line in walk(url, lambda: bar.advance(task), with_key=with_key)]


def _table(lines: list[Line]) -> Table:
    table = Table(
        title="Edits at work: the base model's answers before, the gateway's after", show_lines=False
    )
    for name in ("asked", "question", "before", "after", "route"):
        table.add_column(name, overflow="fold")
    table.add_column("ms", justify="right")
    table.add_column("as it should be", overflow="fold")
    for line in lines:
        if line.kind in ("question", "unrelated"):
            table.add_section()
        unchanged = line.after == line.before
        remark = (
            "unchanged"
            if unchanged and line.kind != "unrelated"
            else "byte-identical"
            if unchanged
            else "edited"
        )
        table.add_row(
            line.kind,
            escape(line.question),
            escape(_shortened(line.before)),
            "=" if unchanged else f"[bold]{escape(_shortened(line.after))}[/]",
            line.route,
            f"{line.latency_ms:,.0f}",
            f"[red]no: {escape(line.problem)}[/]" if line.problem else f"[green]yes, {remark}[/]",
        )
    return table


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 90 else line[:89] + "…"
