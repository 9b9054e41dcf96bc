"""`serac edits retire`: retire the edits that a changed base model answers by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from serac_gateway.cli.options import (
    AuthorOption,
    ExpediteOption,
    JsonOption,
    NamespaceOption,
    TicketOption,
    UrlOption,
    WaitFor,
    WaitOption,
    chosen_namespace,
    chosen_url,
    write_headers,
)
from serac_gateway.cli.proposals import is_proposal, print_proposed
from serac_gateway.cli.terminal import EXIT_REFUSED, EXIT_USAGE, fail, print_json, run, stderr, stdout
from serac_gateway.domain.consolidation import Absorption, ConsolidationReport, decode_report
from serac_gateway.errors import InvalidRequestError


def retire(
    consolidated_in: Annotated[
        Path, typer.Option("--consolidated-in", help="The report.json of `serac-train consolidate`.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Retire them; without it, only show it.")] = False,
    author: AuthorOption = None,
    reason: Annotated[
        str | None, typer.Option(help="Why.", show_default="names the report's method, model and digest")
    ] = None,
    ticket: TicketOption = None,
    wait: WaitOption = WaitFor.LOCAL,
    expedite: ExpediteOption = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retire the edits that a report says are absorbed, in one commit that a rollback takes back.

    Only where the version is still the reported one. Serve the changed model as the upstream first: from
    then on it alone answers them. The exit code is 1 if edits were kept that are not retired already.
    """
    report = _read(consolidated_in)
    name = chosen_namespace(namespace)
    if name and name != report.namespace:
        fail(
            f"the report is of namespace {report.namespace!r}, not {name!r}; leave --namespace out",
            EXIT_USAGE,
        )
    absorbed = [edit for edit in report.edits if edit.state is Absorption.ABSORBED]
    if not absorbed:
        fail(f"of {len(report.edits):,} edits of the report none is absorbed: none is retired", EXIT_REFUSED)
    body = {
        "edits": [
            {"id": edit.id, "version": edit.version, "created_at": edit.created_at} for edit in absorbed
        ],
        "dry_run": not yes,
        "reason": reason
        or f"consolidated by {report.method} into {report.model}, report {report.digest[:16]}",
        **{name: text for name, text in (("author", author), ("ticket", ticket)) if text is not None},
    }
    from serac_gateway.cli.calls import call_gateway

    done = run(
        call_gateway(
            chosen_url(url),
            report.namespace,
            "POST",
            "/serac/v1/edits:retire",
            body=body,
            headers=write_headers(wait, expedite=expedite),
        )
    )
    if is_proposal(done):
        print_json(done) if as_json else print_proposed(done)
        return
    print_json(done) if as_json else _print(done, report, is_done=yes)
    if any(kept["code"] != "already_retired" for kept in done["kept"]):
        raise typer.Exit(EXIT_REFUSED)


def _read(path: Path) -> ConsolidationReport:
    try:
        return decode_report(path.read_bytes())
    except OSError as error:
        fail(f"cannot read the report {str(path)!r}: {error.strerror}", EXIT_USAGE)
    except InvalidRequestError as error:
        fail(f"{str(path)!r}: {error.message}", EXIT_USAGE)


def _print(done: dict[str, Any], report: ConsolidationReport, *, is_done: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    prompts = {edit.id: edit.prompt for edit in report.edits}
    table = Table("edit", "version", "prompt", "retired" if is_done else "would be retired")
    for edit in done["retired"]:
        table.add_row(edit["edit_id"], str(edit["version"]), escape(prompts[edit["edit_id"]]), "yes")
    for kept in done["kept"]:
        no = f"no: {escape(kept['detail'])}"
        table.add_row(
            kept["edit_id"], str(kept["version"]), escape(prompts[kept["edit_id"]]), no, style="dim"
        )
    stdout().print(table)
    stay = len(report.edits) + len(report.left_out) - len(done["retired"]) - len(done["kept"])
    verb = "retired" if is_done else "would be retired"
    stderr().print(
        f"{len(done['retired']):,} {verb}, {len(done['kept']):,} kept; {stay:,} more of the report were not"
        " absorbed and stay",
        soft_wrap=True,
    )
    if done["retired"] and is_done:
        back = f"serac rollback {done['log_id']} --namespace {report.namespace}"
        stderr().print(
            f"{back} takes it back, with all that was written since; `serac edits restore ID...` single"
            " edits",
            soft_wrap=True,
        )
    elif done["retired"]:
        stderr().print(
            f"nothing was changed; serve {escape(report.model)} with {escape(report.artefact)} as the"
            " upstream, then repeat it with --yes",
            soft_wrap=True,
        )
