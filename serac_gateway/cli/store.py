"""`serac store …`: whether the store is sound."""

from __future__ import annotations

import typer

from serac_gateway.cli.console import EXIT_REFUSED, print_json, run, stderr, stdout
from serac_gateway.cli.options import (
    JsonOption,
    NamespaceOption,
    UrlOption,
    chosen_namespace,
    chosen_url,
)

store_app = typer.Typer(no_args_is_help=True, help="Look after the edit store.")


@store_app.callback()
def _store() -> None:
    """Without it, typer would make a group of one command into that command."""


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
