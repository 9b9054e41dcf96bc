"""`serac edits preview` and `serac traffic`: the effect of an edit that is not stored; recorded queries."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from serac_gateway.cli.options import (
    AudienceOption,
    JsonOption,
    LabelOption,
    NamespaceOption,
    UrlOption,
    audience_option,
    chosen_namespace,
    chosen_url,
    label_options,
)
from serac_gateway.cli.terminal import EXIT_REFUSED, EXIT_USAGE, fail, print_json, run, stdout
from serac_gateway.domain.audiences import audience_text
from serac_gateway.domain.edits import EditKind

_MAX_FORMS = 24
"""Texts that are printed."""

traffic_app = typer.Typer(no_args_is_help=True, help="The record of recent queries, where it is switched on.")


def preview(
    file: Annotated[
        str | None, typer.Argument(help="A JSON file with one edit; - reads stdin.", show_default=False)
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="The question that gets a new answer.")] = None,
    target: Annotated[str | None, typer.Option(help="The new answer.")] = None,
    kind: Annotated[EditKind, typer.Option(help="What the edit does.")] = EditKind.FACT,
    paraphrase: Annotated[list[str] | None, typer.Option(help="Another wording; may be repeated.")] = None,
    subject: Annotated[str | None, typer.Option(help="What the question is about.")] = None,
    alias: Annotated[
        list[str] | None, typer.Option(help="Another name of the subject; may be repeated.")
    ] = None,
    audience: AudienceOption = None,
    label: LabelOption = None,
    query: Annotated[list[str] | None, typer.Option(help="A query to try; may be repeated.")] = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what an edit would do, without storing it.

    That is: which edits it contradicts, which queries it would capture, and what lies close to it. The exit
    code is 1 if the namespace would refuse it.
    """
    from serac_gateway.cli.calls import call_gateway

    if (file is None) == (prompt is None or target is None):
        fail("give either a FILE or both --prompt and --target", EXIT_USAGE)
    edit = _read_edit(file) if file is not None else {
        "prompt": prompt, "target_new": target, "kind": kind, "paraphrases": paraphrase or [],
        "subject": subject, "aliases": alias or [], "audience": audience_option(audience),
    }  # fmt: skip
    effect = run(
        call_gateway(
            chosen_url(url),
            chosen_namespace(namespace),
            "POST",
            "/serac/v1/edits:preview",
            body={"edit": edit, "queries": query or [], "labels": label_options(label) or None},
        )
    )
    print_json(effect) if as_json else _print(effect)
    if effect["refused"]:
        raise typer.Exit(EXIT_REFUSED)


@traffic_app.command("show")
def show_traffic(
    url: UrlOption = None, namespace: NamespaceOption = None, as_json: JsonOption = False
) -> None:
    """Show whether queries are recorded, and how many there are."""
    traffic = _traffic(url, namespace, "GET")
    state = "recorded" if traffic["recording"] else "not recorded"
    print_json(traffic) if as_json else stdout().print(
        f"queries are {state}; {traffic['queries']:,} are kept"
    )


@traffic_app.command("clear")
def clear_traffic(
    url: UrlOption = None, namespace: NamespaceOption = None, as_json: JsonOption = False
) -> None:
    """Delete the recorded queries of the namespace."""
    reply = _traffic(url, namespace, "DELETE")
    print_json(reply) if as_json else stdout().print(f"{reply['cleared']:,} queries deleted")


def _traffic(url: str | None, namespace: str | None, method: str) -> Any:  # noqa: ANN401 - decoded JSON
    from serac_gateway.cli.calls import call_gateway

    return run(call_gateway(chosen_url(url), chosen_namespace(namespace), method, "/serac/v1/traffic"))


def _read_edit(file: str) -> Any:  # noqa: ANN401 - decoded JSON
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return msgspec.json.decode(data)
    except OSError as exc:
        fail(f"cannot read {file!r}: {exc.strerror}", EXIT_USAGE)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        fail(f"{file!r} is not one JSON object: {exc}; of an NDJSON file take one line", EXIT_USAGE)


def _print(effect: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = stdout()
    out.print(f"in scope from a scope probability of {effect['scope_threshold']:.3f}")
    if effect["refused"]:
        out.print("[red]the namespace would refuse it[/]: it contradicts edits in force")
    if effect["conflicts"]:
        columns = ("contradicts", "state", "audience", "prompt", "answer", "would be")
        table = Table(*columns, title="Conflicts")
        for conflict in effect["conflicts"]:
            fate = "retired" if conflict["superseded"] else "kept"
            cells = (
                conflict["edit_id"], conflict["state"], audience_text(conflict["audience"]),
                conflict["prompt"], conflict["target_new"], fate,
            )  # fmt: skip
            table.add_row(*(escape(cell) for cell in cells))
        out.print(table)
    else:
        out.print("it contradicts no edit")
    read_as = effect["read_as"]
    gap = f", asked for what is missing in: {escape(read_as['gap'])}" if "gap" in read_as else ""
    out.print(f"its prompt is read as {read_as['form']}{gap}", soft_wrap=True)
    table = Table("text", "what it is", title="Searched by")
    for form in effect["forms"][:_MAX_FORMS]:
        table.add_row(escape(form["text"]), form["kind"])
    out.print(table)
    more = len(effect["forms"]) - _MAX_FORMS
    if more > 0:
        out.print(f"and by {more:,} more texts (--json lists them)")
    if effect["forms_left_out"]:
        out.print(f"{effect['forms_left_out']:,} texts by other names are left out, as there are so many")
    for title, queries, origin in (
        ("Queries given", effect["queries"], ""),
        ("Its prompt asked otherwise (generated)", effect["generated"], ""),
        ("Closest to the threshold", effect["near_misses"], "recorded"),
        ("Recorded traffic it would capture", effect["traffic"]["shown"], "recorded"),
    ):
        if queries:
            out.print(_table(title, queries, origin))
    traffic = effect["traffic"]
    if traffic["recording"] or traffic["queries"]:
        out.print(f"it would capture {traffic['captured']:,} of {traffic['queries']:,} recorded queries")
    else:
        out.print("[dim]no traffic is recorded here; name the namespace in \\[traffic] to have some[/]")


def _table(title: str, queries: list[dict[str, Any]], origin: str) -> Any:  # noqa: ANN401 - rich is imported late
    from rich.markup import escape
    from rich.table import Table

    table = Table("captured", "scope probability", "query", "what it is", title=title)
    for query in queries:
        probability = query["scope_probability"]
        what = query.get("asked_as") or (f"prompt of {query['edit_id']}" if "edit_id" in query else origin)
        if "count" in query:
            what = f"{origin} {query['count']} times"
        if query["governed_by"] is not None:
            what = f"{what}; governed by {query['governed_by']}".removeprefix("; ")
        table.add_row(
            "yes" if query["captured"] else "no",
            "far away" if probability is None else f"{probability:.3f}",
            escape(query["query"]),
            escape(what),
            style="bold green" if query["captured"] else None,
        )
    return table
