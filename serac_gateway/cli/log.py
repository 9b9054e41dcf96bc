"""`serac log …`: list, export and verify the log of all changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serac_gateway.cli.attestation import ExportKind
from serac_gateway.cli.log_evidence import EvidenceReader, LogNotVerifiedError
from serac_gateway.cli.options import (
    JsonOption,
    NamespaceOption,
    UrlOption,
    chosen_namespace,
    chosen_url,
)
from serac_gateway.cli.signed_exports import Signing, SignOption
from serac_gateway.cli.terminal import EXIT_REFUSED, fail, print_json, run, stderr, stdout

if TYPE_CHECKING:  # imported by the functions that use them: together they take a quarter of a second
    from serac_gateway.stores.log_chain import LogHead

log_app = typer.Typer(no_args_is_help=True, help="Read, export and verify the log of all changes.")


@log_app.command("list")
def list_entries(
    after: Annotated[str, typer.Option(metavar="LOG_ID", help="Only entries after this one.")] = "0-0",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")] = 100,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List all changes, oldest first."""
    from serac_gateway.cli.calls import call_gateway

    page = run(
        call_gateway(
            chosen_url(url),
            chosen_namespace(namespace),
            "GET",
            "/serac/v1/log",
            query={"after": after, "limit": str(limit)},
        )
    )
    if as_json:
        print_json(page)
        return
    _print_entries(page["entries"])
    if len(page["entries"]) == limit:
        stderr().print(f"[dim]there may be more: --after {page['next_after']}[/]", soft_wrap=True)


@log_app.command()
def export(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write.", show_default="stdout")
    ] = None,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="With the records and salts that verify the entries.")
    ] = False,
    sign: SignOption = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the whole log as NDJSON (--json changes nothing)."""
    from serac_gateway.cli.calls import export_lines

    path = "/serac/v1/log:export"
    query = {"evidence": "true"} if evidence else {}
    signing = Signing(sign, output)
    done = run(export_lines(chosen_url(url), chosen_namespace(namespace), output, path=path, query=query))
    if output is not None:
        stderr().print(f"{done.lines:,} lines written to {output}", soft_wrap=True)
    signing.sign(done, ExportKind.LOG_EVIDENCE if evidence else ExportKind.LOG)


@log_app.command()
def verify(
    expect: Annotated[
        str | None,
        typer.Option(metavar="DIGEST", help="Digest noted earlier; the log must still contain it."),
    ] = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify that no entry and no version was changed, removed, moved or slipped in.

    Every digest is computed here from the gateway's evidence; its own claims are not trusted. Keep the
    printed digest where nobody with access to the store can change it: with --expect, a log that was
    rewritten as a whole is detected too. Exit code 1 if the log is not what was written.
    """
    try:
        head = run(verified_head(chosen_url(url), chosen_namespace(namespace), expect))
    except LogNotVerifiedError as error:
        if not as_json:
            fail(f"the log is not what was written: {error}", EXIT_REFUSED)
        print_json({"valid": False, "problem": str(error), "log_id": error.log_id})
        raise typer.Exit(EXIT_REFUSED) from error
    if as_json:
        print_json({"valid": True, "entries": head.length, "log_id": head.log_id, "digest": head.digest})
    else:
        stdout().print(f"valid: {head.length:,} entries, the last is {head.log_id}\ndigest {head.digest}")


def _print_entries(entries: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Column, Table

    further = [name for name in ("ticket", "approval") if any(entry.get(name) for entry in entries)]
    table = Table(
        Column("log id", no_wrap=True), "at", "action", "edit", "version", "author", "reason", *further
    )
    for entry in entries:
        cells = (entry["log_id"], entry["at"][:19], entry["action"], entry["edit_id"], str(entry["version"]))
        texts = [entry["author"], entry["reason"], *(entry.get(name) for name in further)]
        table.add_row(*cells, *(escape(text or "") for text in texts))
    stdout().print(table)


async def verified_head(url: str, namespace: str, expected: str | None) -> LogHead:
    """The head of the namespace's log, after all of its evidence has been verified.

    Raises:
        LogNotVerifiedError: The log is not what was written.
        UnreachableError, ApiError: The gateway sends no evidence.
    """
    from serac_gateway.cli.client import CommandClient

    async with (
        CommandClient(url, namespace=namespace) as client,
        client.stream("GET", "/serac/v1/log:export", query={"evidence": "true"}) as response,
    ):
        reader = EvidenceReader(namespace or response.headers["x-serac-namespace"], expected)
        async for line in response.lines():
            reader.take(line)
    return reader.head()
