"""Options that several commands share."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer

from serac_gateway.cli.terminal import EXIT_USAGE, fail
from serac_gateway.domain.audiences import audience_of_texts
from serac_gateway.errors import InvalidRequestError

DEFAULT_URL = "http://127.0.0.1:8080"

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", help="The gateway; also by SERAC_URL.", show_default=DEFAULT_URL, rich_help_panel="Gateway"
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        help="Also by SERAC_NAMESPACE.",
        show_default="the API key's own, else default",
        rich_help_panel="Gateway",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.", rich_help_panel="Output")]


UserOption = Annotated[
    str | None, typer.Option(help="On whose behalf: canaries go by the user.", show_default=False)
]


class WaitFor(StrEnum):
    """Where a change is in force when a command returns."""

    LOCAL = "local"
    ALL = "all"


WaitOption = Annotated[
    WaitFor,
    typer.Option(
        "--wait",
        help="Return when it is in force here, or in all live gateways.",
        rich_help_panel="Gateway",
    ),
]


AuthorOption = Annotated[str | None, typer.Option(help="Who says so; an API key's own name comes first.")]
ReasonOption = Annotated[str | None, typer.Option(help="Why.")]
TicketOption = Annotated[str | None, typer.Option(help="Under which case or order.")]
ExpediteOption = Annotated[
    bool,
    typer.Option(
        "--expedite",
        help="As an admin write at once where others would have to agree; with --reason. The log says so.",
        rich_help_panel="Gateway",
    ),
]
AudienceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--audience",
        metavar="LABEL=VALUE,…",
        help="For whose requests it holds, as region=eu,uk; may be repeated, all labels must fit.",
        show_default="everybody's",
    ),
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="LABEL=VALUE",
        help="A label that the request is imagined with, as region=eu; may be repeated.",
    ),
]


def write_headers(wait: WaitFor = WaitFor.LOCAL, *, expedite: bool = False) -> dict[str, str]:
    """The headers of a call that writes: where it is waited for, and whether it goes round agreement."""
    return {"x-serac-wait": wait.value, **({"x-serac-expedite": "true"} if expedite else {})}


def audience_option(texts: list[str] | None) -> dict[str, tuple[str, ...]]:
    """The audience that `--audience` writes; ends the command if it writes none."""
    try:
        return audience_of_texts(texts or ())
    except InvalidRequestError as error:
        fail(error.message, EXIT_USAGE)


def label_options(texts: list[str] | None) -> dict[str, str]:
    """The labels that `--label` writes, each with one value; ends the command if one has several."""
    audience = audience_option(texts)
    for label, values in audience.items():
        if len(values) > 1:
            fail(f"--label {label} has {len(values)} values; a request has one", EXIT_USAGE)
    return {label: value for label, (value,) in audience.items()}


def chosen_url(url: str | None) -> str:
    """The option, else SERAC_URL, else the default; without a trailing slash."""
    return (url or os.environ.get("SERAC_URL") or DEFAULT_URL).rstrip("/")


def chosen_namespace(namespace: str | None) -> str:
    """The option, else SERAC_NAMESPACE, else "", which stands for the API key's own namespace."""
    return namespace or os.environ.get("SERAC_NAMESPACE") or ""
