"""`serac edits verify`: all edits as a regression suite; and `serac edits set-state`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from serac_gateway.cli.console import EXIT_REFUSED, print_json, run, stdout
from serac_gateway.cli.edits import EditIdArgument, edit_path
from serac_gateway.cli.options import (
    JsonOption,
    NamespaceOption,
    UrlOption,
    chosen_namespace,
    chosen_url,
)
from serac_gateway.domain.edits import DecidedState


def verify(
    edit_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID...]", help="Only these.", show_default=False)
    ] = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask every edit's own questions, and show which are not answered as it says.

    All edits that are live or on trial, unless ids are given. The exit code is 1 if any fails. With --json
    each edit's outcome is printed as it comes.
    """
    from serac_gateway.cli.verify_calls import verified

    for edit_id in edit_ids or ():
        edit_path(edit_id)
    passed, failed = run(
        verified(chosen_url(url), chosen_namespace(namespace), edit_ids or (), as_json=as_json)
    )
    if not as_json:
        _print_failures(failed)
        stdout().print(f"{passed:,} of {passed + len(failed):,} edits passed")
    if failed:
        raise typer.Exit(EXIT_REFUSED)


def set_state(
    edit_id: EditIdArgument,
    state: Annotated[DecidedState, typer.Argument(help="live, shadow or canary.")],
    share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of users to whom a canary is applied.")
    ] = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put an edit on trial, or make it live.

    A shadow is decided and counted and never applied; a canary is applied to a share of users.
    """
    from serac_gateway.cli.verify_calls import patched

    body = {"state": state.value} | ({} if share is None else {"canary_share": share})
    edit = run(patched(chosen_url(url), chosen_namespace(namespace), edit_path(edit_id), body))
    print_json(edit) if as_json else stdout().print(
        f"{edit['id']} version {edit['version']} is {edit['state']}"
    )


def _print_failures(failed: Sequence[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not failed:
        return
    table = Table("edit", "asked", "failure", "governed by", "answer", title="Failures")
    for outcome in failed:
        for probe in outcome["probes"]:
            if not probe["passed"]:
                cells = (
                    f"{outcome['edit_id']} v{outcome['edit_version']}", probe["query"], probe["failure"],
                    probe["governed_by"] or "", probe["answer"] or "",
                )  # fmt: skip
                table.add_row(*(escape(cell) for cell in cells))
    stdout().print(table)
