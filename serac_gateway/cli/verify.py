"""`serac edits verify`, all edits as a regression suite; and `serac edits set-state`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from serac_gateway.cli.edits import EditIdArgument, edit_path
from serac_gateway.cli.options import (
    AuthorOption,
    ExpediteOption,
    JsonOption,
    NamespaceOption,
    ReasonOption,
    TicketOption,
    UrlOption,
    chosen_namespace,
    chosen_url,
    write_headers,
)
from serac_gateway.cli.proposals import is_proposal, print_proposed
from serac_gateway.cli.terminal import EXIT_REFUSED, print_json, run, stderr, stdout
from serac_gateway.domain.edits import ACTIVE_STATES, DecidedState

if TYPE_CHECKING:
    from serac_gateway.cli.client import CommandClient


def verify(
    edit_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID...]", help="Only these.", show_default=False)
    ] = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask every edit's own questions, and show those that are not answered as the edit says.

    All edits that are live or on trial, unless ids are given. The exit code is 1 if any fails. With --json
    each edit's outcome is printed at once.
    """
    for edit_id in edit_ids or ():
        edit_path(edit_id)
    passed, failed = run(
        run_verification(chosen_url(url), chosen_namespace(namespace), edit_ids or (), as_json=as_json)
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
    author: AuthorOption = None,
    reason: ReasonOption = None,
    ticket: TicketOption = None,
    expedite: ExpediteOption = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put an edit on trial, or make it live.

    A shadow is decided and counted and never applied; a canary is applied to a share of users.
    """
    given = {
        "state": state.value,
        "canary_share": share,
        "author": author,
        "reason": reason,
        "ticket": ticket,
    }
    body = {name: value for name, value in given.items() if value is not None}
    headers = write_headers(expedite=expedite)
    from serac_gateway.cli.calls import patch_edit

    edit = run(patch_edit(chosen_url(url), chosen_namespace(namespace), edit_path(edit_id), body, headers))
    if as_json:
        print_json(edit)
    elif is_proposal(edit):
        print_proposed(edit)
    else:
        stdout().print(f"{edit['id']} version {edit['version']} is {edit['state']}")


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


_PAGE = 1_000


async def run_verification(
    url: str, namespace: str, edit_ids: Sequence[str], *, as_json: bool
) -> tuple[int, list[dict[str, Any]]]:
    """Verify edits, by default all active ones: how many passed, and the outcomes of the others."""
    from serac_gateway.cli.client import CommandClient

    bar = Progress(
        TextColumn("verifying"), MofNCompleteColumn(), TextColumn("{task.fields[failed]:,} failed"),
        TimeElapsedColumn(), console=stderr(), disable=as_json or not stderr().is_terminal,
    )  # fmt: skip
    passed, failed = 0, list[dict[str, Any]]()
    async with CommandClient(url, namespace=namespace) as client:
        with bar:
            task = bar.add_task("", total=len(edit_ids) or None, failed=0)
            async for edit_id in _each(edit_ids) if edit_ids else _ids(client):
                outcome = (await client.call("POST", f"{edit_path(edit_id)}:verify")).json()
                if as_json:
                    print_json(outcome)
                if outcome["passed"]:
                    passed += 1
                else:
                    failed.append(outcome)
                bar.update(task, advance=1, failed=len(failed))
    return passed, failed


async def _each(edit_ids: Sequence[str]) -> AsyncIterator[str]:
    for edit_id in edit_ids:
        yield edit_id


async def _ids(client: CommandClient) -> AsyncIterator[str]:
    """The ids of all edits that are live or on trial."""
    query = {"limit": str(_PAGE)}
    while True:
        page = (await client.call("GET", "/serac/v1/edits", query=query)).json()
        for edit in page["edits"]:
            if edit["state"] in ACTIVE_STATES:
                yield edit["id"]
        if page["next_cursor"] is None:
            return
        query["cursor"] = page["next_cursor"]
