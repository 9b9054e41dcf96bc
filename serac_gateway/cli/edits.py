"""`serac edits …`: the commands and what they print."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
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
from serac_gateway.cli.proposals import is_proposal, print_proposed
from serac_gateway.cli.terminal import EXIT_REFUSED, EXIT_USAGE, fail, print_json, run, stderr, stdout
from serac_gateway.domain.edits import DecidedState, EditKind, EditState, check_edit_id
from serac_gateway.errors import InvalidRequestError

edits_app = typer.Typer(no_args_is_help=True, help="Add, read, remove, import and export edits.")


class Clearable(StrEnum):
    """A field that a change can empty."""

    SUBJECT = "subject"
    PARAPHRASES = "paraphrases"
    ALIASES = "aliases"


EditIdArgument = Annotated[str, typer.Argument(metavar="ID", help="The edit's id.")]


@edits_app.command()
def add(
    prompt: Annotated[str, typer.Argument(help="The question that gets a new answer.")],
    target_new: Annotated[str, typer.Argument(metavar="ANSWER", help="The new answer.")],
    kind: Annotated[EditKind, typer.Option(help="What the edit does.")] = EditKind.FACT,
    paraphrase: Annotated[list[str] | None, typer.Option(help="Another wording; may be repeated.")] = None,
    subject: Annotated[str | None, typer.Option(help="What the question is about.")] = None,
    alias: Annotated[
        list[str] | None, typer.Option(help="Another name of the subject; may be repeated.")
    ] = None,
    target_true: Annotated[
        str | None, typer.Option(help="The old answer; of a suppression the value to keep back.")
    ] = None,
    valid_from: Annotated[str | None, typer.Option(help="2026-12-01T00:00:00Z")] = None,
    valid_until: Annotated[str | None, typer.Option(help="2027-01-01T00:00:00Z")] = None,
    author: Annotated[str | None, typer.Option(help="Who says so.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
    source: Annotated[str | None, typer.Option(help="Where it stands.")] = None,
    state: Annotated[DecidedState, typer.Option(help="On trial, or live at once.")] = DecidedState.LIVE,
    canary_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of users to whom a canary is applied.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Ask its own questions at once; exit code 1 if one fails.")
    ] = False,
    edit_id: Annotated[str | None, typer.Option("--id", help="An id of your own.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Repeat the command with it without adding twice.")
    ] = None,
    wait: WaitOption = WaitFor.LOCAL,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add an edit; it is in force when this returns."""
    given = {
        "prompt": prompt,
        "target_new": target_new,
        "kind": kind,
        "paraphrases": paraphrase,
        "aliases": alias,
        "subject": subject,
        "target_true": target_true,
        "valid_from": valid_from,
        "valid_until": valid_until,
        "author": author,
        "reason": reason,
        "source": source,
        "state": state,
        "canary_share": canary_share,
        "id": edit_id,
    }
    draft = {name: value for name, value in given.items() if value is not None and value != []}
    headers = {"x-serac-wait": wait.value}
    if idempotency_key:
        headers["idempotency-key"] = idempotency_key
    path = "/serac/v1/edits?verify=true" if verify else "/serac/v1/edits"
    edit = _call(url, namespace, "POST", path, body=draft, headers=headers)
    if as_json:
        print_json(edit)
    elif is_proposal(edit):
        print_proposed(edit)
    else:
        stdout().print(f"added {edit['id']} version {edit['version']}")
        _print_effect(edit)
    if verify and not is_proposal(edit) and not edit["verified"]["passed"]:
        raise typer.Exit(EXIT_REFUSED)


@edits_app.command()
def change(
    edit_id: EditIdArgument,
    prompt: Annotated[str | None, typer.Option(help="Another prompt.")] = None,
    target: Annotated[str | None, typer.Option(help="Another answer.")] = None,
    paraphrase: Annotated[
        list[str] | None, typer.Option(help="The wordings in place of those it has; may be repeated.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="What the question is about.")] = None,
    alias: Annotated[
        list[str] | None, typer.Option(help="The other names in place of those it has; may be repeated.")
    ] = None,
    clear: Annotated[list[Clearable] | None, typer.Option(help="A field to empty; may be repeated.")] = None,
    author: Annotated[str | None, typer.Option(help="Who says so.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change an edit; what is not given stays."""
    from serac_gateway.cli.calls import patch_edit

    given = {
        "prompt": prompt,
        "target_new": target,
        "paraphrases": paraphrase or None,
        "subject": subject,
        "aliases": alias or None,
        "author": author,
        "reason": reason,
    }
    body: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for field in clear or ():
        if field.value in body:
            fail(f"--clear {field.value} contradicts the value given for it; give one of them", EXIT_USAGE)
        body[field.value] = None if field is Clearable.SUBJECT else []
    edit = run(patch_edit(chosen_url(url), chosen_namespace(namespace), edit_path(edit_id), body))
    if as_json:
        print_json(edit)
    elif is_proposal(edit):
        print_proposed(edit)
    else:
        stdout().print(f"changed {edit['id']}, now version {edit['version']}")
        _print_effect(edit)


@edits_app.command("list")
def list_edits(
    state: Annotated[EditState | None, typer.Option(help="Only edits in this state.")] = EditState.LIVE,
    every: Annotated[bool, typer.Option("--all", help="Retired ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List edits in the order of their ids."""
    from serac_gateway.cli.calls import list_all

    edits, more = run(list_all(chosen_url(url), chosen_namespace(namespace), None if every else state, limit))
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
        if value not in (None, []):
            table.add_row(name, escape(_as_text(value)))
    stdout().print(table)


@edits_app.command()
def remove(
    edit_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the edits.")],
    author: Annotated[str | None, typer.Option(help="Who says so.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
    wait: WaitOption = WaitFor.LOCAL,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retire edits: they never fire again, their history stays."""
    from serac_gateway.cli.calls import retire_edit

    for edit_id in edit_ids:
        why = {name: text for name, text in (("author", author), ("reason", reason)) if text is not None}
        edit = run(retire_edit(chosen_url(url), chosen_namespace(namespace), edit_path(edit_id), why, wait))
        if as_json:
            print_json(edit)
        elif is_proposal(edit):
            print_proposed(edit)
        else:
            stdout().print(f"retired {edit['id']} version {edit['version']}")


@edits_app.command("import")
def import_edits(
    file: Annotated[str, typer.Argument(help="NDJSON, one edit a line; - reads stdin.")],
    wait: WaitOption = WaitFor.LOCAL,
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
            wait,
            as_json=as_json,
            on_proposal=on_proposal,
        )
    )
    if not as_json:
        unchanged = f", {counts['there']:,} there already" if counts["there"] else ""
        waiting = f", {counts['proposed']:,} proposed" if counts["proposed"] else ""
        stdout().print(f"{counts['added']:,} imported{waiting}{unchanged}, {counts['refused']:,} refused")
    if counts["refused"]:
        raise typer.Exit(EXIT_REFUSED)


@edits_app.command()
def export(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write.", show_default="stdout")
    ] = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all live edits as NDJSON, as `import` takes them (--json changes nothing)."""
    from serac_gateway.cli.calls import export_lines

    count = run(export_lines(chosen_url(url), chosen_namespace(namespace), output))
    if output is not None:
        stderr().print(f"{count:,} edits written to {output}", soft_wrap=True)


def _print_import_proposal(proposal: dict[str, Any], *, as_json: bool) -> None:
    print_json({"proposal": proposal}) if as_json else print_proposed(proposal)


def _as_text(value: Any) -> str:  # noqa: ANN401 - decoded JSON
    """A field of an edit: a text, a list of texts, or its last verification."""
    if isinstance(value, dict):
        return f"version {value['edit_version']} {'passed' if value['passed'] else 'failed'} {value['at']}"
    return "\n".join(value) if isinstance(value, list) else str(value)


def _print_effect(edit: dict[str, Any]) -> None:
    """Print what an edit that was just written contradicts or may lack, and how its verification ended."""
    from rich.markup import escape

    for conflict in edit["conflicts"] or ():
        fate = "retired it" if conflict["superseded"] else "the newer one wins"
        stderr().print(
            f"[yellow]contradicts[/] {conflict['edit_id']} ({fate}): {escape(conflict['target_new'])}",
            soft_wrap=True,
        )
    for warning in edit.get("warnings", ()):
        stderr().print(f"[yellow]warning[/] {escape(warning['detail'])}", soft_wrap=True)
    for probe in edit.get("verified", {}).get("probes", ()):
        outcome = "[green]passed[/]" if probe["passed"] else f"[red]failed[/] ({escape(probe['failure'])})"
        stderr().print(f"{outcome}: {escape(probe['query'])}", soft_wrap=True)


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

    columns = ["id", "version", "state", "kind", "prompt", "new answer"]
    near = any("similarity" in edit for edit in edits)
    table = Table(*(["similarity", *columns] if near else columns))
    for edit in edits:
        table.add_row(
            *([f"{edit['similarity']:.3f}"] if near else []),
            edit["id"],
            str(edit["version"]),
            edit["state"],
            edit["kind"],
            escape(edit["prompt"]),
            escape(edit["target_new"]),
            style=None if edit["state"] == EditState.LIVE else "dim",
        )
    stdout().print(table)
