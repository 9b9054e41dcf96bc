"""`serac store …`: whether the store is sound, backup, restore, another encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serac_gateway.cli.console import EXIT_REFUSED, EXIT_USAGE, fail, print_json, run, stderr, stdout
from serac_gateway.cli.options import (
    JsonOption,
    NamespaceOption,
    UrlOption,
    chosen_namespace,
    chosen_url,
)

store_app = typer.Typer(no_args_is_help=True, help="Look after the edit store.")


@store_app.command()
def check(
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check log, records, vectors and what is in force; the exit code is 1 if anything does not fit."""
    from serac_gateway.cli.edit_calls import called

    with stderr().status("checking"):
        report = run(called(chosen_url(url), chosen_namespace(namespace), "GET", "/serac/v1/store:check"))
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
def backup(
    file: Annotated[Path, typer.Argument(help="File to write.")],
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a namespace with all versions, its log and its vectors into a file."""
    from serac_gateway.cli.store_calls import backed_up

    with stderr().status("backing up"):
        head = run(backed_up(chosen_url(url), chosen_namespace(namespace), file))
    if as_json:
        print_json({"log_entries": head["length"], "log_digest": head["digest"]})
    else:
        stdout().print(f"{head['length']:,} log entries written to {file}\ndigest {head['digest']}")


@store_app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a backup into a store where its namespace was never used; the log is verified on the way."""
    from serac_gateway.cli.store_calls import restored

    if not file.is_file():
        fail(f"there is no file {str(file)!r}", EXIT_USAGE)
    with stderr().status("restoring"):
        done = run(restored(chosen_url(url), chosen_namespace(namespace), file))
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
    """Make stored vectors anew that another encoder made, while the gateway serves.

    One that was broken off goes on where it was when it is run again.
    """
    from serac_gateway.cli.store_calls import reencoded

    done = run(reencoded(chosen_url(url), chosen_namespace(namespace)))
    if as_json:
        print_json(done)
    else:
        stdout().print(
            f"{done['reencoded']:,} of {done['edits']:,} edits encoded anew; all are encoded with"
            f" {done['encoder']}"
        )
