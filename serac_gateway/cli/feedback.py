"""`serac feedback …`: report right and wrong answers to requests, and export the reports for training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from serac_gateway.cli.options import (
    JsonOption,
    NamespaceOption,
    UrlOption,
    chosen_namespace,
    chosen_url,
)
from serac_gateway.cli.terminal import EXIT_USAGE, fail, print_json, run, stderr, stdout
from serac_gateway.domain.feedback import FeedbackVerdict

_REPORT = "report"


class _ReportUnlessNamed(TyperGroup):
    """`serac feedback REQUEST_ID VERDICT` is short for `serac feedback report REQUEST_ID VERDICT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own context
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = [_REPORT, *args]
        return super().parse_args(ctx, args)


feedback_app = typer.Typer(
    cls=_ReportUnlessNamed,
    no_args_is_help=True,
    help="Report on requests: `serac feedback REQUEST_ID VERDICT`; export the reports for training.",
)


@feedback_app.command(_REPORT)
def report(
    request_id: Annotated[
        str, typer.Argument(help="The response's x-serac-request-id or x-request-id; `serac ask` shows it.")
    ],
    verdict: Annotated[FeedbackVerdict, typer.Argument(help="What was right or wrong.")],
    edit_id: Annotated[
        str | None,
        typer.Option("--edit", help="Which edit should have fired.", show_default="the nearest one"),
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="What was asked, where the gateway does not record it.")
    ] = None,
    comment: Annotated[str | None, typer.Option(help="For who reads the reports.")] = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Report on a request that was decided on lately."""
    body = {
        "request_id": request_id,
        "verdict": verdict,
        "edit_id": edit_id,
        "query": query,
        "comment": comment,
    }
    reply = _call(url, namespace, "POST", body={k: v for k, v in body.items() if v is not None})
    if as_json:
        print_json(reply)
        return
    request = reply["request"]
    fired = f"edit {request['edit_id']}" if request["edit_id"] else "no edit"
    stdout().print(f"reported: route {request['route']}, {fired}, {request['reason']}")


@feedback_app.command()
def export(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write.", show_default="stdout")
    ] = None,
    training: Annotated[
        bool, typer.Option("--training", help="As the traffic that `serac-train` reads.")
    ] = False,
    edits: Annotated[
        Path | None,
        typer.Option(help="With --training: the file for the edits that the rows name, which it needs too."),
    ] = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the reports as NDJSON (--json changes nothing)."""
    from serac_gateway.cli.calls import export_lines

    if edits is not None and not training:
        fail("--edits goes with --training: serac edits export writes edits alone", EXIT_USAGE)
    path, query = "/serac/v1/feedback:export", {"training": "true"} if training else {}
    where = chosen_url(url), chosen_namespace(namespace)
    done = run(export_lines(*where, output, path=path, query=query))
    if output is not None:
        stderr().print(f"{done.lines:,} lines written to {output}", soft_wrap=True)
    if edits is not None:
        done = run(export_lines(*where, edits))
        stderr().print(f"{done.lines:,} edits written to {edits}", soft_wrap=True)


@feedback_app.command()
def clear(url: UrlOption = None, namespace: NamespaceOption = None, as_json: JsonOption = False) -> None:
    """Delete the reports of the namespace."""
    reply = _call(url, namespace, "DELETE")
    print_json(reply) if as_json else stdout().print(f"{reply['cleared']:,} reports deleted")


def _call(url: str | None, namespace: str | None, method: str, **more: Any) -> Any:  # noqa: ANN401 - decoded JSON
    from serac_gateway.cli.calls import call_gateway

    return run(
        call_gateway(chosen_url(url), chosen_namespace(namespace), method, "/serac/v1/feedback", **more)
    )
