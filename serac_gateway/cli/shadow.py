"""`serac shadow`: what the scope classifier on trial would have decided otherwise."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from serac_gateway.cli.options import (
    JsonOption,
    NamespaceOption,
    UrlOption,
    chosen_namespace,
    chosen_url,
)
from serac_gateway.cli.terminal import print_json, run, stdout


def shadow(
    limit: Annotated[int, typer.Option(min=0, help="Requests listed at most.")] = 20,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how the scope classifier on trial compares with the one in force.

    Set models.scope_classifier_shadow to a folder of `serac-train promote` and reload to have one.
    """
    from serac_gateway.cli.calls import call_gateway

    reply = run(call_gateway(chosen_url(url), chosen_namespace(namespace), "GET", "/serac/v1/shadow"))
    if as_json:
        print_json(reply)
        return
    report = reply["shadow"]
    if report is None:
        stdout().print(
            "no scope classifier is on trial; set models.scope_classifier_shadow to a folder that"
            " `serac-train promote` wrote, and reload",
            soft_wrap=True,
        )
        return
    _print(report, limit)


def _print(report: dict[str, Any], limit: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    out, decisions = stdout(), report["decisions"]
    out.print(
        f"{escape(report['weights'])} on trial since {report['since'][:19]},"
        f" in scope from {report['scope_threshold']:.3f}, of suppressions from"
        f" {report['suppression_threshold']:.3f}",
        soft_wrap=True,
    )
    out.print(
        " · ".join(f"{outcome.replace('_', ' ')} {count:,}" for outcome, count in decisions.items()),
        soft_wrap=True,
    )
    rows = report["disagreements"][:limit]
    if not rows:
        return
    table = Table("request", "in force", "on trial", "query", title="Decided otherwise, the latest first")
    for row in rows:
        table.add_row(
            row["request_id"],
            _verdict(row["edit_id"], row["scope_probability"]),
            _verdict(row["shadow_edit_id"], row["shadow_scope_probability"]),
            escape(row["query"] or "(not recorded)"),
        )
    out.print(table)


def _verdict(edit_id: str | None, probability: float | None) -> str:
    number = "" if probability is None else f" {probability:.3f}"
    return f"{edit_id or 'no edit'}{number}"
