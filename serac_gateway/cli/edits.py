"""`serac edits …`: the commands and what they print."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from serac_gateway.cli.attestation import ExportKind
from serac_gateway.cli.options import (
    AudienceOption,
    AuthorOption,
    ExpediteOption,
    JsonOption,
    NamespaceOption,
    ReasonOption,
    TicketOption,
    UrlOption,
    WaitFor,
    WaitOption,
    audience_option,
    chosen_namespace,
    chosen_url,
    write_headers,
)
from serac_gateway.cli.proposals import is_proposal, print_proposed
from serac_gateway.cli.signed_exports import Signing, SignOption
from serac_gateway.cli.terminal import EXIT_REFUSED, EXIT_USAGE, fail, print_json, run, stderr, stdout
from serac_gateway.domain.audiences import audience_text
from serac_gateway.domain.edits import EditState, check_edit_id
from serac_gateway.errors import InvalidRequestError

edits_app = typer.Typer(no_args_is_help=True, help="Add, read, remove, import and export edits.")


EditIdArgument = Annotated[str, typer.Argument(metavar="ID", help="The edit's id.")]


@edits_app.command("list")
def list_edits(
    state: Annotated[EditState | None, typer.Option(help="Only edits in this state.")] = EditState.LIVE,
    every: Annotated[bool, typer.Option("--all", help="Retired ones too.")] = False,
    audience: AudienceOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List edits in the order of their ids; with --audience only those for these labels and values."""
    from serac_gateway.cli.calls import list_all

    wanted = audience_text(audience_option(audience))
    listed = list_all(
        chosen_url(url), chosen_namespace(namespace), None if every else state, limit, audience=wanted
    )
    edits, more = run(listed)
    if as_json:
        print_json(edits)
    else:
        _print_table(edits)
    if more:
        stderr().print(
            f"[dim]there are more than {limit}; raise --limit or use `serac edits export`[/]", soft_wrap=True
        )


@edits_app.command()
def search(
    text: Annotated[str, typer.Argument(help="What to look for.")],
    meaning: Annotated[
        bool, typer.Option("--meaning", help="By meaning, nearest first, instead of letter by letter.")
    ] = False,
    state: Annotated[EditState | None, typer.Option(help="Only edits in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")] = 20,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find edits by a text that stands in prompt, answers, names or paraphrases, or by meaning.

    By meaning only edits in force are found. With --json each edit has its similarity then.
    """
    from serac_gateway.cli.calls import search_edits

    edits, more = run(search_edits(chosen_url(url), chosen_namespace(namespace), text, meaning, state, limit))
    if as_json:
        print_json(edits)
    else:
        _print_table(edits)
    if more:
        stderr().print(f"[dim]there are more than {limit}; raise --limit[/]", soft_wrap=True)


@edits_app.command()
def show(
    edit_id: EditIdArgument,
    versions: Annotated[bool, typer.Option("--versions", help="All versions, oldest first.")] = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show an edit, or its history."""
    path = edit_path(edit_id)
    if versions:
        history = _call(url, namespace, "GET", f"{path}/versions")["versions"]
        print_json(history) if as_json else _print_table(history)
        return
    edit = _call(url, namespace, "GET", path)
    if as_json:
        print_json(edit)
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in edit.items():
        if value not in (None, [], {}):
            table.add_row(name, escape(_as_text(value)))
    stdout().print(table)


@edits_app.command()
def remove(
    edit_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the edits.")],
    author: AuthorOption = None,
    reason: ReasonOption = None,
    ticket: TicketOption = None,
    wait: WaitOption = WaitFor.LOCAL,
    expedite: ExpediteOption = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retire edits: they never fire again, their history stays."""
    from serac_gateway.cli.calls import retire_edit

    for edit_id in edit_ids:
        given = {"author": author, "reason": reason, "ticket": ticket}
        why = {name: text for name, text in given.items() if text is not None}
        headers = write_headers(wait, expedite=expedite)
        edit = run(
            retire_edit(chosen_url(url), chosen_namespace(namespace), edit_path(edit_id), why, headers)
        )
        if as_json:
            print_json(edit)
        elif is_proposal(edit):
            print_proposed(edit)
        else:
            stdout().print(f"retired {edit['id']} version {edit['version']}")


@edits_app.command("import")
def import_edits(
    file: Annotated[str, typer.Argument(help="NDJSON, one edit a line; - reads stdin.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, line by line, and do nothing.")
    ] = False,
    wait: WaitOption = WaitFor.LOCAL,
    expedite: ExpediteOption = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the edits of a file. A bad line stops no other; the exit code is 1 if there was one.

    The same file again changes nothing, so an import that was broken off is resumed by repeating it.

    With --json each line's outcome is printed as it comes.
    """
    from serac_gateway.cli.calls import import_file

    if file != "-" and not Path(file).is_file():
        fail(f"there is no file {file!r}", EXIT_USAGE)
    on_proposal = partial(_print_import_proposal, as_json=as_json)
    counts = run(
        import_file(
            chosen_url(url),
            chosen_namespace(namespace),
            file,
            write_headers(wait, expedite=expedite),
            dry_run=dry_run,
            as_json=as_json,
            on_proposal=on_proposal,
        )
    )
    if not as_json:
        unchanged = f", {counts['there']:,} there already" if counts["there"] else ""
        waiting = f", {counts['proposed']:,} proposed" if counts["proposed"] else ""
        imported = "would be imported" if dry_run else "imported"
        stdout().print(f"{counts['added']:,} {imported}{waiting}{unchanged}, {counts['refused']:,} refused")
    if counts["refused"]:
        raise typer.Exit(EXIT_REFUSED)


@edits_app.command()
def export(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write.", show_default="stdout")
    ] = None,
    sign: SignOption = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all live edits as NDJSON, as `import` takes them (--json changes nothing)."""
    from serac_gateway.cli.calls import export_lines

    signing = Signing(sign, output)
    done = run(export_lines(chosen_url(url), chosen_namespace(namespace), output))
    if output is not None:
        stderr().print(f"{done.lines:,} edits written to {output}", soft_wrap=True)
    signing.sign(done, ExportKind.EDITS)


def _print_import_proposal(proposal: dict[str, Any], *, as_json: bool) -> None:
    print_json({"proposal": proposal}) if as_json else print_proposed(proposal)


def _as_text(value: Any) -> str:  # noqa: ANN401 - decoded JSON
    """A field of an edit: a text, a list of texts, its audience, or its last verification."""
    if isinstance(value, dict) and "passed" not in value:
        return audience_text(value)
    if isinstance(value, dict):
        return f"version {value['edit_version']} {'passed' if value['passed'] else 'failed'} {value['at']}"
    return "\n".join(value) if isinstance(value, list) else str(value)


def _call(url: str | None, namespace: str | None, method: str, path: str, **more: Any) -> Any:  # noqa: ANN401 - decoded JSON
    from serac_gateway.cli.calls import call_gateway

    return run(call_gateway(chosen_url(url), chosen_namespace(namespace), method, path, **more))


def edit_path(edit_id: str) -> str:
    """The edit's path in the API; ends the command if `edit_id` is no id."""
    try:
        return f"/serac/v1/edits/{check_edit_id(edit_id)}"
    except InvalidRequestError as error:
        fail(error.message, EXIT_USAGE)


def _print_table(edits: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    columns = ["id", "version", "state", "kind", "audience", "prompt", "new answer"]
    is_wanted = any(edit["audience"] for edit in edits)
    columns = [column for column in columns if is_wanted or column != "audience"]
    near = any("similarity" in edit for edit in edits)
    table = Table(*(["similarity", *columns] if near else columns))
    for edit in edits:
        table.add_row(
            *([f"{edit['similarity']:.3f}"] if near else []),
            edit["id"],
            str(edit["version"]),
            edit["state"],
            edit["kind"],
            *([audience_text(edit["audience"])] if is_wanted else []),
            escape(edit["prompt"]),
            escape(edit["target_new"]),
            style=None if edit["state"] == EditState.LIVE else "dim",
        )
    stdout().print(table)
