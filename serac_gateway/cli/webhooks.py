"""`serac webhooks …`: list the receivers of events, try one, see what became of its events."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from serac_gateway.cli.options import JsonOption, UrlOption, chosen_url
from serac_gateway.cli.terminal import EXIT_REFUSED, print_json, run, stderr, stdout

webhooks_app = typer.Typer(no_args_is_help=True, help="See which events are sent where, and try it.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As [webhooks.NAME] configures it.")]


@webhooks_app.command("list")
def list_webhooks(url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the configured webhooks, and how many events wait for each."""
    from rich.table import Table

    webhooks = _call(url, "GET", "")["webhooks"]
    if as_json:
        print_json(webhooks)
        return
    if not webhooks:
        stdout().print("no webhook is configured; add a section [webhooks.NAME] and reload", markup=False)
        return
    table = Table("webhook", "to", "events", "namespaces", "waiting", "state")
    for webhook in webhooks:
        table.add_row(
            webhook["name"],
            webhook["url"],
            ", ".join(webhook["events"]),
            ", ".join(webhook["namespaces"]),
            f"{webhook['waiting']:,}",
            "[red]off: its receiver answered 410[/]" if webhook["disabled"] else "on",
        )
    stdout().print(table)


@webhooks_app.command("test")
def try_webhook(name: NameArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Send a webhook an event `webhook.test`; exit code 1 if its receiver does not take it."""
    from rich.markup import escape

    reply = _call(url, "POST", f"/{_quoted(name)}:test")
    if as_json:
        print_json(reply)
    elif reply["delivered"]:
        stdout().print(
            f"[green]delivered[/] {reply['event_id']}: status {reply['status']} after"
            f" {reply['took_ms']:,.0f} ms",
            soft_wrap=True,
        )
    else:
        stderr().print(f"[red]not delivered:[/] {escape(reply['problem'])}", soft_wrap=True)
    if not reply["delivered"]:
        raise typer.Exit(EXIT_REFUSED)


@webhooks_app.command()
def deliveries(
    name: NameArgument,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 20,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the latest events of a webhook: which wait, which were delivered, which were given up, and why."""
    from rich.markup import escape
    from rich.table import Table

    listed = _call(url, "GET", f"/{_quoted(name)}/deliveries", query={"limit": str(limit)})["deliveries"]
    if as_json:
        print_json(listed)
        return
    table = Table("event", "type", "namespace", "made", "state", "attempts", "last")
    for delivery in listed:
        last = delivery["problem"] or ("" if delivery["status"] is None else f"status {delivery['status']}")
        table.add_row(
            delivery["event_id"],
            delivery["type"],
            delivery["namespace"] or "",
            delivery["created_at"][:19],
            delivery["state"],
            str(delivery["attempts"]),
            escape(last),
        )
    stdout().print(table)


def _call(url: str | None, method: str, path: str, **more: Any) -> Any:  # noqa: ANN401 - decoded JSON
    from serac_gateway.cli.calls import call_gateway

    return run(call_gateway(chosen_url(url), "", method, f"/serac/v1/webhooks{path}", **more))


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")
