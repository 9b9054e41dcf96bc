"""`serac edits compare`: both arms of a canary, and what to do with it."""

from __future__ import annotations

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
    chosen_namespace,
    chosen_url,
    write_headers,
)
from serac_gateway.cli.proposals import is_proposal, print_proposed
from serac_gateway.cli.terminal import EXIT_USAGE, fail, print_json, run, stdout

_STATES = {
    "no_data": "[yellow]no data[/]: an arm has no request yet",
    "unbalanced": "[red]unbalanced[/]: the share of users with the edit is not the configured one, so the"
    " arms do not compare; see whether requests name their users",
    "inconclusive": "[yellow]inconclusive[/]: the reports show no difference, or are too few",
    "better": "[green]better[/]: with the edit more of the reports say that the answer was right",
    "worse": "[red]worse[/]: with the edit fewer of the reports say that the answer was right",
}
_MAX_CHARS = 160


def compare(
    edit_id: EditIdArgument,
    version: Annotated[
        int | None, typer.Option(min=1, help="Compare this version's requests.", show_default="latest canary")
    ] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Then make it live, for all users.")] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="Then make it a shadow: decided, and applied to nobody.")
    ] = False,
    author: AuthorOption = None,
    reason: ReasonOption = None,
    ticket: TicketOption = None,
    expedite: ExpediteOption = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the users who have a canary with those who do not; promote or stop it.

    An interval holds for one look at a number of requests that was fixed before. Where others must agree,
    --promote and --stop make a proposal.
    """
    from serac_gateway.cli.calls import call_gateway

    if promote and stop:
        fail("--promote and --stop exclude each other; give one of them", EXIT_USAGE)
    at, name, path = chosen_url(url), chosen_namespace(namespace), edit_path(edit_id)
    query = None if version is None else {"version": str(version)}
    compared = run(call_gateway(at, name, "GET", f"{path}:compare", query=query))
    if not promote and not stop:
        print_json(compared) if as_json else _print(compared)
        return
    given = {"state": "live" if promote else "shadow", "author": author, "reason": reason, "ticket": ticket}
    body = {field: value for field, value in given.items() if value is not None}
    headers = {**write_headers(expedite=expedite), "if-match": f'"{compared["version"]}"'}
    edit = run(call_gateway(at, name, "PATCH", path, body=body, headers=headers))
    if as_json:
        print_json(edit)
    elif is_proposal(edit):
        print_proposed(edit)
    else:
        stdout().print(f"{edit['id']} version {edit['version']} is {edit['state']}")


def _print(compared: dict[str, Any]) -> None:
    from rich.table import Table

    out = stdout()
    out.print(
        f"{compared['edit_id']} version {compared['version']}, a canary for {compared['canary_share']:.0%} of"
        f" the users since {compared['since'][:19]}",
        soft_wrap=True,
    )
    out.print(_STATES[compared["state"]], soft_wrap=True)
    treatment, control = compared["treatment"], compared["control"]
    differences = compared["differences"]
    table = Table("", "with the edit", "without", "difference")
    table.add_row("requests", f"{treatment['requests']:,}", f"{control['requests']:,}", "")
    table.add_row("users", f"{treatment['callers']:,}", f"{control['callers']:,}", "")
    for label, field, form in (
        ("reports: right", "right_share", _share),
        ("failed", "failure_share", _share),
        ("median time", "median_ms", _milliseconds),
    ):
        table.add_row(
            label, form(treatment[field]), form(control[field]), form(differences[field], signed=True)
        )
    for verdict, count in treatment["verdicts"].items():
        table.add_row(f"  {verdict.replace('_', ' ')}", f"{count:,}", f"{control['verdicts'][verdict]:,}", "")
    out.print(table)
    _print_answers(treatment["answers"], control["answers"])
    out.print(
        "[dim]Intervals: Wilson, Newcombe, bootstrap, 95 %; they hold for one look at a number of requests"
        " that was fixed before.[/]",
        soft_wrap=True,
    )


def _print_answers(treatment: list[dict[str, Any]], control: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not treatment and not control:
        return
    table = Table("", "question", "answer", title="The latest answers")
    for label, answers in (("with", treatment), ("without", control)):
        for answer in answers[:5]:
            texts = (answer["query"], answer["answer"])
            table.add_row(label, *(escape((text or "")[:_MAX_CHARS]) for text in texts))
    stdout().print(table)


def _share(interval: dict[str, float] | None, *, signed: bool = False) -> str:
    if interval is None:
        return "no data"
    sign = "+" if signed else ""
    estimate, low, high = (interval[name] for name in ("estimate", "low", "high"))
    return f"{estimate:{sign}.1%} ({low:{sign}.1%} to {high:{sign}.1%})"


def _milliseconds(interval: dict[str, float] | None, *, signed: bool = False) -> str:
    if interval is None:
        return "no data"
    sign = "+" if signed else ""
    estimate, low, high = (interval[name] for name in ("estimate", "low", "high"))
    return f"{estimate:{sign},.0f} ms ({low:{sign},.0f} to {high:{sign},.0f})"
