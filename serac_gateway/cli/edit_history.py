"""`serac edits restore|rollback|purge` and `serac rollback`: undo changes, or delete content for good."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from serac_gateway.cli.edits import EditIdArgument, edit_path
from serac_gateway.cli.options import (
    AuthorOption,
    ExpediteOption,
    JsonOption,
    NamespaceOption,
    ReasonOption,
    TicketOption,
    UrlOption,
    WaitFor,
    WaitOption,
    chosen_namespace,
    chosen_url,
    write_headers,
)
from serac_gateway.cli.proposals import is_proposal, print_proposed
from serac_gateway.cli.terminal import EXIT_USAGE, fail, print_json, run, stderr, stdout

YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def restore(
    edit_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of retired edits.")],
    author: AuthorOption = None,
    reason: ReasonOption = None,
    ticket: TicketOption = None,
    wait: WaitOption = WaitFor.LOCAL,
    expedite: ExpediteOption = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make retired edits live again."""
    for edit_id in edit_ids:
        body = _given(author=author, reason=reason, ticket=ticket)
        edit = _change(url, namespace, edit_id, "restore", body, write_headers(wait, expedite=expedite))
        if as_json:
            print_json(edit)
        elif is_proposal(edit):
            print_proposed(edit)
        else:
            stdout().print(f"restored {edit['id']} version {edit['version']}")


def rollback_edit(
    edit_id: EditIdArgument,
    version: Annotated[int, typer.Argument(min=1, help="The version to go back to.")],
    author: AuthorOption = None,
    reason: ReasonOption = None,
    ticket: TicketOption = None,
    wait: WaitOption = WaitFor.LOCAL,
    expedite: ExpediteOption = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to an older version of an edit: a new version copies it, and all versions stay."""
    body = {"version": version, **_given(author=author, reason=reason, ticket=ticket)}
    edit = _change(url, namespace, edit_id, "rollback", body, write_headers(wait, expedite=expedite))
    if as_json:
        print_json(edit)
    elif is_proposal(edit):
        print_proposed(edit)
    else:
        stdout().print(f"{edit['id']} version {edit['version']} is version {version} again ({edit['state']})")


def purge(
    edit_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the edits.")],
    reason: Annotated[str, typer.Option(help="Why; it stays, so name nothing that is to be forgotten.")],
    author: AuthorOption = None,
    ticket: TicketOption = None,
    wait: WaitOption = WaitFor.LOCAL,
    yes: YesOption = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget edits for good: their content is deleted from all versions, and cannot be had back."""
    paths = {edit_id: edit_path(edit_id) for edit_id in edit_ids}
    _confirm(f"Delete the content of {', '.join(paths)} for good?", yes=yes)
    for edit_id in paths:
        body = {"reason": reason, **_given(author=author, ticket=ticket)}
        edit = _change(url, namespace, edit_id, "purge", body, write_headers(wait))
        print_json(edit) if as_json else stdout().print(f"purged {edit['id']}: a tombstone is left")


def rollback(
    log_id: Annotated[str, typer.Argument(metavar="LOG_ID", help="Entry of the log; 0-0: before the first.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    author: AuthorOption = None,
    reason: ReasonOption = None,
    ticket: TicketOption = None,
    wait: WaitOption = WaitFor.LOCAL,
    expedite: ExpediteOption = False,
    yes: YesOption = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take all edits of the namespace back to what they were after an entry of the log.

    Edits added since become retired; those purged since stay purged. Nothing is lost: the log goes on.
    """
    if not dry_run:
        name = chosen_namespace(namespace) or "of the API key, or else default,"
        _confirm(f"Take the namespace {name} back to log id {log_id}?", yes=yes)
    from serac_gateway.cli.calls import call_gateway

    body = {"log_id": log_id, "dry_run": dry_run, **_given(author=author, reason=reason, ticket=ticket)}
    headers = write_headers(wait, expedite=expedite)
    done = run(
        call_gateway(
            chosen_url(url),
            chosen_namespace(namespace),
            "POST",
            "/serac/v1/rollback",
            body=body,
            headers=headers,
        )
    )
    if as_json:
        print_json(done)
        return
    if is_proposal(done):
        print_proposed(done)
        return
    _print_rollback(done)
    verb = "would change" if dry_run else "changed"
    stderr().print(f"{len(done['changes']):,} edits {verb}", soft_wrap=True)


def _change(
    url: str | None,
    namespace: str | None,
    edit_id: str,
    verb: str,
    body: dict[str, Any],
    headers: dict[str, str],
) -> Any:  # noqa: ANN401 - decoded JSON
    from serac_gateway.cli.calls import change_edit

    return run(
        change_edit(chosen_url(url), chosen_namespace(namespace), edit_path(edit_id), verb, body, headers)
    )


def _given(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        fail("this changes a lot; say --yes where nobody can be asked", EXIT_USAGE)
    typer.confirm(question, abort=True, err=True)


def _print_rollback(done: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("edit", "from version", "to version", "state")
    for change in done["changes"]:
        to_version = change["to_version"]
        target = "retired, because it is newer" if to_version is None else str(to_version)
        table.add_row(change["edit_id"], str(change["from_version"]), target, change["state"])
    for edit_id in done["purged"]:
        table.add_row(edit_id, "", "stays purged", "purged", style="dim")
    stdout().print(table)
