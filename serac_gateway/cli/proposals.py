"""`serac proposals …`: list, show, approve, reject and withdraw what waits for the agreement of others."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

import typer

from serac_gateway.cli.options import (
    JsonOption,
    NamespaceOption,
    UrlOption,
    WaitFor,
    WaitOption,
    chosen_namespace,
    chosen_url,
)
from serac_gateway.cli.terminal import EXIT_USAGE, fail, print_json, run, stderr, stdout

proposals_app = typer.Typer(
    no_args_is_help=True, help="Decide on changes that wait for the agreement of others."
)

_PROPOSAL_ID = re.compile(r"pr_[0-9a-f]{22}")

ProposalArgument = Annotated[str, typer.Argument(metavar="ID", help="The proposal's id.")]
WhyOption = Annotated[str, typer.Option(help="Why; it stays with the proposal.")]


class ListedState(StrEnum):
    """Where a proposal stands."""

    OPEN = "open"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


@proposals_app.command("list")
def list_proposals(
    state: Annotated[ListedState, typer.Option(help="Only those in this state.")] = ListedState.OPEN,
    every: Annotated[bool, typer.Option("--all", help="In any state.")] = False,
    edit: Annotated[str | None, typer.Option(metavar="EDIT", help="Only those that concern it.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List proposals in the order in which they were made."""
    from serac_gateway.cli.calls import list_items

    given = {"state": None if every else state.value, "edit_id": edit}
    query = {name: value for name, value in given.items() if value is not None}
    listing = list_items(
        chosen_url(url), chosen_namespace(namespace), "/serac/v1/proposals", "proposals", query, limit
    )
    proposals, more = run(listing)
    print_json(proposals) if as_json else _print_table(proposals)
    if more:
        stderr().print(f"[dim]there are more than {limit}; raise --limit[/]", soft_wrap=True)


@proposals_app.command()
def show(
    proposal_id: ProposalArgument,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a proposal would change, what it would do, and who says what of it."""
    from serac_gateway.cli.calls import call_gateway

    call = call_gateway(chosen_url(url), chosen_namespace(namespace), "GET", _path(proposal_id))
    proposal = run(call)
    print_json(proposal) if as_json else _print_details(proposal)


@proposals_app.command()
def approve(
    proposal_id: ProposalArgument,
    reason: WhyOption,
    wait: WaitOption = WaitFor.LOCAL,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Agree; with the last agreement that is needed, the changes are in force when this returns."""
    _decide("approve", proposal_id, reason, url, namespace, as_json=as_json, wait=wait)


@proposals_app.command()
def reject(
    proposal_id: ProposalArgument,
    reason: WhyOption,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse; one refusal closes a proposal."""
    _decide("reject", proposal_id, reason, url, namespace, as_json=as_json)


@proposals_app.command()
def withdraw(
    proposal_id: ProposalArgument,
    reason: WhyOption,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take one's own proposal back."""
    _decide("withdraw", proposal_id, reason, url, namespace, as_json=as_json)


def is_proposal(reply: dict[str, Any]) -> bool:
    """Whether the reply to a write is a proposal, because others must agree, and not what was written."""
    return "verdicts" in reply


def print_proposed(proposal: dict[str, Any]) -> None:
    """Say what has become of a write in whose place there is a proposal."""
    others = "1 other agrees" if proposal["needed"] == 1 else f"{proposal['needed']} others agree"
    stdout().print(
        f"proposed {proposal['id']}: nothing is changed until {others}, by"
        f" {proposal['expires_at'][:10]}; `serac proposals show {proposal['id']}`",
        soft_wrap=True,
    )


def _decide(
    verb: str,
    proposal_id: str,
    reason: str,
    url: str | None,
    namespace: str | None,
    *,
    as_json: bool,
    wait: WaitFor = WaitFor.LOCAL,
) -> None:
    from serac_gateway.cli.calls import call_gateway

    proposal = run(
        call_gateway(
            chosen_url(url),
            chosen_namespace(namespace),
            "POST",
            f"{_path(proposal_id)}:{verb}",
            body={"reason": reason},
            headers={"x-serac-wait": wait.value},
        )
    )
    if as_json:
        print_json(proposal)
    elif proposal["state"] == ListedState.OPEN:
        stdout().print(f"{proposal['id']}: {proposal['agreed']} of {proposal['needed']} agree")
    else:
        stdout().print(f"{proposal['id']} is {proposal['state']}")


def _path(proposal_id: str) -> str:
    if not _PROPOSAL_ID.fullmatch(proposal_id):
        fail(f"{proposal_id!r} is no proposal's id; `serac proposals list` shows them", EXIT_USAGE)
    return f"/serac/v1/proposals/{proposal_id}"


def _print_table(proposals: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Column, Table

    columns = ("state", "does", "edits", "author", "agree", "until", "reason")
    table = Table(Column("id", no_wrap=True), *columns)
    for proposal in proposals:
        edits = proposal["edit_ids"]
        more = f" and {len(edits) - 1:,} more" if len(edits) > 1 else ""
        table.add_row(
            proposal["id"],
            proposal["state"],
            proposal["action"],
            edits[0] + more,
            escape(proposal["author"]),
            f"{proposal['agreed']} of {proposal['needed']}",
            proposal["expires_at"][:16],
            escape(proposal["reason"] or ""),
            style=None if proposal["state"] == ListedState.OPEN else "dim",
        )
    stdout().print(table)


def _print_details(proposal: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    _print_table([proposal])
    table = Table("edit", "does", "field", "now", "then")
    for change in proposal["changes"]:
        for field in change["fields"]:
            texts = (_text(field["before"]), _text(field["after"]))
            table.add_row(change["edit_id"], change["action"], field["field"], *map(escape, texts))
    stdout().print(table)
    if effect := proposal["effect"]:
        stdout().print(
            f"previewed {effect['previewed']:,}: {len(effect['conflicts']):,} conflicts,"
            f" {effect['paraphrases_captured']:,} of {effect['paraphrases']:,} paraphrases captured"
            + (
                ""
                if effect["recorded"] is None
                else f", {effect['recorded_captured']:,} of {effect['recorded']:,} recorded requests captured"
            ),
            soft_wrap=True,
        )
        for conflict in effect["conflicts"]:
            stdout().print(f"[yellow]contradicts[/] {conflict['other_id']} v{conflict['other_version']}")
    for verdict in proposal["verdicts"]:
        says = "[green]agrees[/]" if verdict["accepts"] else "[red]refuses[/]"
        stdout().print(f"{escape(verdict['approver'])} {says}: {escape(verdict['reason'])}", soft_wrap=True)
    if proposal["stale"]:
        stdout().print(f"[yellow]stale[/]: {escape(proposal['stale'])}", soft_wrap=True)


def _text(value: Any) -> str:  # noqa: ANN401 - decoded JSON
    if isinstance(value, list):
        return "\n".join(map(str, value))
    return "" if value is None else str(value)
