"""`serac edits add|change`: write an edit, and print what it contradicts."""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from serac_gateway.cli.edits import EditIdArgument, edit_path
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
from serac_gateway.cli.terminal import EXIT_REFUSED, EXIT_USAGE, fail, print_json, run, stderr, stdout
from serac_gateway.domain.edits import DecidedState, EditKind

_PROVENANCE = "Provenance"

InstitutionOption = Annotated[
    str | None, typer.Option(help="Who answers for the content.", rich_help_panel=_PROVENANCE)
]
SourceOption = Annotated[
    str | None, typer.Option(help="What it rests on, in words.", rich_help_panel=_PROVENANCE)
]
SourceUrlOption = Annotated[
    str | None, typer.Option(help="Where the document lies.", rich_help_panel=_PROVENANCE)
]
SourceDigestOption = Annotated[
    str | None,
    typer.Option(
        "--source-sha256", help="SHA-256 digest of the document, 64 digits.", rich_help_panel=_PROVENANCE
    ),
]
SourceFileOption = Annotated[
    Path | None,
    typer.Option(
        help="The document itself, of which the digest is taken; it is not sent.", rich_help_panel=_PROVENANCE
    ),
]
LegalBasisOption = Annotated[str | None, typer.Option(help="By which rule.", rich_help_panel=_PROVENANCE)]
ReviewByOption = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="By when to look at it again.", rich_help_panel=_PROVENANCE),
]


class Clearable(StrEnum):
    """A field that a change can empty."""

    SUBJECT = "subject"
    PARAPHRASES = "paraphrases"
    ALIASES = "aliases"
    AUDIENCE = "audience"
    INSTITUTION = "institution"
    SOURCE = "source"
    SOURCE_URL = "source_url"
    SOURCE_SHA256 = "source_sha256"
    LEGAL_BASIS = "legal_basis"
    REVIEW_BY = "review_by"


_LISTS = (Clearable.PARAPHRASES, Clearable.ALIASES)


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
    audience: AudienceOption = None,
    valid_from: Annotated[str | None, typer.Option(help="2026-12-01T00:00:00Z")] = None,
    valid_until: Annotated[str | None, typer.Option(help="2027-01-01T00:00:00Z")] = None,
    author: AuthorOption = None,
    reason: ReasonOption = None,
    ticket: TicketOption = None,
    institution: InstitutionOption = None,
    source: SourceOption = None,
    source_url: SourceUrlOption = None,
    source_sha256: SourceDigestOption = None,
    source_file: SourceFileOption = None,
    legal_basis: LegalBasisOption = None,
    review_by: ReviewByOption = None,
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
    expedite: ExpediteOption = False,
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
        "audience": audience_option(audience),
        "valid_from": valid_from,
        "valid_until": valid_until,
        "author": author,
        "reason": reason,
        "ticket": ticket,
        **_provenance(
            institution=institution,
            source=source,
            source_url=source_url,
            source_sha256=source_sha256,
            source_file=source_file,
            legal_basis=legal_basis,
            review_by=review_by,
        ),
        "state": state,
        "canary_share": canary_share,
        "id": edit_id,
    }
    draft = {name: value for name, value in given.items() if value not in (None, [], {})}
    headers = write_headers(wait, expedite=expedite)
    if idempotency_key:
        headers["idempotency-key"] = idempotency_key
    path = "/serac/v1/edits?verify=true" if verify else "/serac/v1/edits"
    from serac_gateway.cli.calls import call_gateway

    edit = run(
        call_gateway(chosen_url(url), chosen_namespace(namespace), "POST", path, body=draft, headers=headers)
    )
    if as_json:
        print_json(edit)
    elif is_proposal(edit):
        print_proposed(edit)
    else:
        stdout().print(f"added {edit['id']} version {edit['version']}")
        _print_effect(edit)
    if verify and not is_proposal(edit) and not edit["verified"]["passed"]:
        raise typer.Exit(EXIT_REFUSED)


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
    audience: AudienceOption = None,
    clear: Annotated[list[Clearable] | None, typer.Option(help="A field to empty; may be repeated.")] = None,
    author: AuthorOption = None,
    reason: ReasonOption = None,
    ticket: TicketOption = None,
    institution: InstitutionOption = None,
    source: SourceOption = None,
    source_url: SourceUrlOption = None,
    source_sha256: SourceDigestOption = None,
    source_file: SourceFileOption = None,
    legal_basis: LegalBasisOption = None,
    review_by: ReviewByOption = None,
    expedite: ExpediteOption = False,
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
        "audience": audience_option(audience) or None,
        "author": author,
        "reason": reason,
        "ticket": ticket,
        **_provenance(
            institution=institution,
            source=source,
            source_url=source_url,
            source_sha256=source_sha256,
            source_file=source_file,
            legal_basis=legal_basis,
            review_by=review_by,
        ),
    }
    body: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for field in clear or ():
        if field.value in body:
            fail(f"--clear {field.value} contradicts the value given for it; give one of them", EXIT_USAGE)
        body[field.value] = [] if field in _LISTS else None
    headers = write_headers(expedite=expedite)
    edit = run(patch_edit(chosen_url(url), chosen_namespace(namespace), edit_path(edit_id), body, headers))
    if as_json:
        print_json(edit)
    elif is_proposal(edit):
        print_proposed(edit)
    else:
        stdout().print(f"changed {edit['id']}, now version {edit['version']}")
        _print_effect(edit)


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


def _provenance(
    *,
    institution: str | None,
    source: str | None,
    source_url: str | None,
    source_sha256: str | None,
    source_file: Path | None,
    legal_basis: str | None,
    review_by: datetime | None,
) -> dict[str, str | None]:
    """The fields of the API; ends the command if digest and file are both given, or the file is not there."""
    if source_file is not None:
        if source_sha256 is not None:
            fail("--source-sha256 and --source-file both give the digest; give one of them", EXIT_USAGE)
        source_sha256 = _digest(source_file)
    return {
        "institution": institution,
        "source": source,
        "source_url": source_url,
        "source_sha256": source_sha256,
        "legal_basis": legal_basis,
        "review_by": None if review_by is None else review_by.date().isoformat(),
    }


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        fail(f"cannot read the document {str(path)!r}: {error.strerror}", EXIT_USAGE)
