"""`serac store …`: check, repair, back up, restore and reencode a namespace of the edit store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from serac_gateway.cli.options import (
    JsonOption,
    NamespaceOption,
    UrlOption,
    chosen_namespace,
    chosen_url,
)
from serac_gateway.cli.terminal import (
    EXIT_REFUSED,
    EXIT_USAGE,
    GatewayRefusedError,
    GatewayUnreachableError,
    fail,
    print_json,
    run,
    stderr,
    stdout,
)

store_app = typer.Typer(no_args_is_help=True, help="Look after the edit store.")


DataDirOption = Annotated[
    Path | None, typer.Option(help="As of `serac serve`.", rich_help_panel="Data folder")
]
ConfigOption = Annotated[
    Path | None, typer.Option(help="As of `serac serve`.", rich_help_panel="Data folder")
]


@store_app.command()
def check(
    purged: Annotated[
        bool,
        typer.Option(
            "--purged",
            help="Look whether a text, read from stdin or a prompt, lies in any file of the data folder"
            " of this machine; the gateway may run or not.",
        ),
    ] = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check log, records, vectors and edits in force; the exit code is 1 if anything does not fit."""
    if purged:
        from serac_gateway.cli.data_folder import check_purged

        check_purged(data_dir=data_dir, config=config, as_json=as_json)
        return
    from serac_gateway.cli.calls import call_gateway

    with stderr().status("checking"):
        report = run(
            call_gateway(chosen_url(url), chosen_namespace(namespace), "GET", "/serac/v1/store:check")
        )
    if as_json:
        print_json(report)
    else:
        counts = ", ".join(f"{count:,} {state}" for state, count in report["edits"].items() if count)
        verdict = "sound" if report["sound"] else f"{len(report['problems'])} problems"
        stdout().print(f"{verdict}: {counts or 'no edits'}, {report['log_entries']:,} log entries")
        for problem in report["problems"]:
            stderr().print(problem, style="red", markup=False, soft_wrap=True)
    if not report["sound"]:
        raise typer.Exit(EXIT_REFUSED)


@store_app.command()
def repair(
    apply: Annotated[
        bool, typer.Option("--apply", help="Mend it; the damaged bytes go into a file first.")
    ] = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is damaged of a namespace and, with --apply, mend it; the exit code is 1 if any remains."""
    from serac_gateway.cli.calls import call_gateway

    path = "/serac/v1/store:repair" + ("?apply=true" if apply else "")
    with stderr().status("repairing" if apply else "looking"):
        report = run(call_gateway(chosen_url(url), chosen_namespace(namespace), "POST", path))
    if as_json:
        print_json(report)
    else:
        _print_repair(report)
    if report["remaining"]:
        raise typer.Exit(EXIT_REFUSED)


def _print_repair(report: dict[str, Any]) -> None:
    from rich.table import Table

    damages = report["damages"]
    if not damages:
        stdout().print(f"nothing of namespace {report['namespace']} is damaged")
        return
    table = Table("edit", "damage", "remedy", "done")
    for damage in damages:
        remedy = damage["remedy"] + (f" -> {damage['new_id']}" if damage["new_id"] else "")
        table.add_row(damage["edit_id"] or "", damage["fault"], remedy, "yes" if damage["mended"] else "no")
    stdout().print(table)
    if report["saved_to"]:
        stderr().print(f"what was stored before lies in {report['saved_to']}", markup=False, soft_wrap=True)
    if report["remaining"]:
        repairable = any(not damage["mended"] and damage["remedy"] != "none" for damage in damages)
        advice = "; --apply mends what has a remedy" if repairable and not report["applied"] else ""
        stderr().print(f"{report['remaining']} damages remain{advice}", style="red", soft_wrap=True)


@store_app.command()
def recover(
    apply: Annotated[
        bool, typer.Option("--apply", help="Cut it out; the bytes go into a file first.")
    ] = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what of the embedded store's append-only file cannot be read, while no gateway runs on it.

    For a store that does not start. With --apply it is cut out, with the commits it belongs to: those are
    lost. The exit code is 1 if any remains.
    """
    from serac_gateway.cli.data_folder import recover_file

    recover_file(apply=apply, data_dir=data_dir, config=config, as_json=as_json)


@store_app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="File to write.")],
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a namespace with all versions, its log and its vectors into a file."""
    with stderr().status("backing up"):
        head = run(write_backup(chosen_url(url), chosen_namespace(namespace), file))
    if as_json:
        print_json({"log_entries": head["length"], "log_digest": head["digest"]})
    else:
        stdout().print(f"{head['length']:,} log entries written to {file}\ndigest {head['digest']}")


@store_app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    url: UrlOption = None,
    accept_unsealed: Annotated[
        bool,
        typer.Option(
            "--accept-unsealed",
            help="Vouch for a backup from elsewhere; needs an admin key for every namespace.",
        ),
    ] = False,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a backup into a store where its namespace was never used, once all of it is checked."""
    if not file.is_file():
        fail(f"there is no file {str(file)!r}", EXIT_USAGE)
    with stderr().status("restoring"):
        done = run(send_backup(chosen_url(url), chosen_namespace(namespace), file, accept_unsealed))
    if as_json:
        print_json(done)
    else:
        stdout().print(
            f"{done['log_entries']:,} log entries restored into namespace {done['namespace']}\n"
            f"digest {done['log_digest']}"
        )


@store_app.command()
def reencode(
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Encode stored edits again whose vectors another encoder made, while the gateway serves.

    Run it again after an interruption: it resumes where it stopped.
    """
    done = run(run_reencoding(chosen_url(url), chosen_namespace(namespace)))
    if as_json:
        print_json(done)
    else:
        stdout().print(
            f"{done['reencoded']:,} of {done['edits']:,} edits encoded anew; all are encoded with"
            f" {done['encoder']}"
        )


_CHUNK_BYTES = 65_536
_GO_ON = "edits encoded so far are kept; run the command again to go on"
_HEAD_BYTES = 1_024
"""More than the longest head, which is the last line of a backup."""


async def write_backup(url: str, namespace: str, file: Path) -> dict[str, Any]:
    """Write the namespace's backup to the file, and return its head. An incomplete file is deleted.

    Raises:
        GatewayUnreachableError: The backup broke off.
    """
    from serac_gateway.cli.client import CommandClient

    part = file.with_name(file.name + ".part")
    tail = b""
    try:
        with part.open("wb") as target:
            async with (
                CommandClient(url, namespace=namespace) as client,
                client.stream("GET", "/serac/v1/store:backup") as response,
            ):
                async for chunk in response.chunks():
                    await asyncio.to_thread(target.write, chunk)
                    tail = (tail + chunk)[-_HEAD_BYTES:]
        head = _last_line(tail)
        if head.get("kind") != "head":
            raise GatewayUnreachableError(f"the backup from {url} broke off before its end; make it again")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return head


async def send_backup(url: str, namespace: str, file: Path, accept_unsealed: bool = False) -> dict[str, Any]:
    """Send the backup, and return the gateway's summary."""
    from serac_gateway.cli.client import CommandClient

    path = "/serac/v1/store:restore" + ("?accept_unsealed=true" if accept_unsealed else "")

    async def chunks() -> AsyncIterator[bytes]:
        with file.open("rb") as source:
            while chunk := await asyncio.to_thread(source.read, _CHUNK_BYTES):
                yield chunk

    async with (
        CommandClient(url, namespace=namespace) as client,
        client.stream("POST", path, content=chunks()) as response,
    ):
        done: dict[str, Any] = msgspec.json.decode(await response.read())
        return done


async def run_reencoding(url: str, namespace: str) -> dict[str, Any]:
    """Have the gateway encode the namespace again, show the progress, and return the last progress line.

    Raises:
        GatewayRefusedError: The gateway's store or encoder failed meanwhile.
        GatewayUnreachableError: The response broke off.
    """
    from serac_gateway.cli.client import CommandClient

    progress_line: dict[str, Any] = {"complete": False}
    progress = Progress(
        TextColumn("encoding anew: {task.fields[reencoded]:,} of {task.completed:,} edits looked at"),
        TimeElapsedColumn(),
        console=stderr(),
        disable=not stderr().is_terminal,
    )
    with progress:
        task = progress.add_task("", total=None, reencoded=0)
        async with (
            CommandClient(url, namespace=namespace) as client,
            client.stream("POST", "/serac/v1/store:reencode") as response,
        ):
            async for line in response.lines():
                progress_line = msgspec.json.decode(line)
                if "error" in progress_line:
                    raise GatewayRefusedError(f"{progress_line['error']['detail']}; {_GO_ON}")
                progress.update(task, completed=progress_line["edits"], reencoded=progress_line["reencoded"])
    if not progress_line["complete"]:
        raise GatewayUnreachableError(f"{url} broke off before the end; {_GO_ON}")
    return progress_line


def _last_line(tail: bytes) -> dict[str, Any]:
    try:
        line: dict[str, Any] = msgspec.json.decode(tail.rstrip(b"\n").rpartition(b"\n")[2])
    except ValueError:
        return {}
    return line
