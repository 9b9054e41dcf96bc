"""`serac`: its commands and their exit codes.

Commands import their libraries when they run, so that `serac --help` is fast and a client command never
loads a model library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serac_gateway import __version__
from serac_gateway.cli.bench.capacity_command import capacity
from serac_gateway.cli.bench.commands import bench_app
from serac_gateway.cli.bench.replicas_command import follow_writes
from serac_gateway.cli.bench.storage_commands import import_edits, index, start, write
from serac_gateway.cli.compare import compare
from serac_gateway.cli.doctor import doctor
from serac_gateway.cli.edit_history import purge, restore, rollback, rollback_edit
from serac_gateway.cli.edit_writing import add, change
from serac_gateway.cli.edits import edits_app
from serac_gateway.cli.engine import engine_app
from serac_gateway.cli.feedback import feedback_app
from serac_gateway.cli.keys import keys_app
from serac_gateway.cli.log import log_app
from serac_gateway.cli.mcp import mcp
from serac_gateway.cli.options import (
    JsonOption,
    LabelOption,
    NamespaceOption,
    UrlOption,
    UserOption,
    label_options,
)
from serac_gateway.cli.preview import preview, traffic_app
from serac_gateway.cli.proposals import proposals_app
from serac_gateway.cli.reload import reload
from serac_gateway.cli.replicas import replicas
from serac_gateway.cli.retire import retire
from serac_gateway.cli.review import due
from serac_gateway.cli.shadow import shadow
from serac_gateway.cli.signed_exports import verify_export
from serac_gateway.cli.signing_keys import signing_key_app
from serac_gateway.cli.store import store_app
from serac_gateway.cli.terminal import stderr
from serac_gateway.cli.verify import set_state, verify
from serac_gateway.cli.webhooks import webhooks_app

app = typer.Typer(
    name="serac",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="An OpenAI-compatible proxy that makes edits to a chat model take effect at once.",
    epilog="[bold]Exit codes[/]: 0 all went well · 1 the gateway refused, or a line or check failed · 2 wrong"
    " usage or configuration · 3 no gateway answers.",
)
app.add_typer(edits_app, name="edits")
edits_app.command()(add)
edits_app.command()(change)
edits_app.command()(due)
edits_app.command()(restore)
edits_app.command()(retire)
edits_app.command("rollback")(rollback_edit)
edits_app.command()(purge)
edits_app.command()(preview)
edits_app.command()(verify)
edits_app.command()(set_state)
edits_app.command()(compare)
app.command()(rollback)
app.add_typer(proposals_app, name="proposals")
app.add_typer(log_app, name="log")
app.command("verify-export")(verify_export)
app.add_typer(signing_key_app, name="signing-key")
app.add_typer(traffic_app, name="traffic")
app.add_typer(feedback_app, name="feedback")
app.add_typer(webhooks_app, name="webhooks")
app.add_typer(store_app, name="store")
app.add_typer(engine_app, name="engine")
app.command()(replicas)
app.command()(reload)
app.command()(shadow)
app.command()(doctor)
app.command()(mcp)
app.add_typer(keys_app, name="keys")
app.add_typer(bench_app, name="bench")
bench_app.command("import")(import_edits)
bench_app.command()(start)
bench_app.command()(write)
bench_app.command()(index)
bench_app.command("replicas")(follow_writes)
bench_app.command()(capacity)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", show_default="8080")] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the embedded store and of converted models.", show_default="XDG data folder"
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file; see configs/gateway/.")] = None,
    redis: Annotated[
        str | None,
        typer.Option(help="Edit store: redis://…, rediss://… or unix://….", show_default="embedded"),
    ] = None,
    upstream: Annotated[
        str | None, typer.Option(help="Base model's server: http://…/v1.", show_default="embedded model")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that serve HTTP and share one set of models.", show_default="1"),
    ] = None,
) -> None:
    """Start the gateway; with no options on embedded defaults.

    The upstream's key comes from the client, or from SERAC_UPSTREAM_API_KEY.
    """
    from serac_gateway.cli.serve import serve_gateway

    serve_gateway(
        config_file=config,
        overrides={
            "data_dir": None if data_dir is None else str(data_dir),
            "server": {"host": host, "port": port, "workers": workers},
            "store": {"url": redis},
            "upstream": {"url": upstream},
        },
        on_ready=lambda url: stderr().print(f"serving on [bold]{url}/v1[/]; Ctrl-C ends it", soft_wrap=True),
    )


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What to ask the chat model through the gateway.")],
    model: Annotated[str | None, typer.Option(help="Model id.", show_default="the upstream's first")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 64,
    user: UserOption = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:VALUE", help="A further header, as x-region:eu; may be repeated."),
    ] = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a question, stream the answer, and show who answered."""
    from serac_gateway.cli.ask import ask as run_ask
    from serac_gateway.cli.ask import header_options

    run_ask(
        question,
        model=model,
        max_tokens=max_tokens,
        user=user,
        headers=header_options(header or ()),
        url=url,
        namespace=namespace,
        as_json=as_json,
    )


@app.command()
def explain(
    question: Annotated[
        str | None, typer.Argument(help="The question to decide on; no model answers it.", show_default=False)
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="The system prompt that the question comes with.", show_default=False)
    ] = None,
    request: Annotated[
        typer.FileText | None,
        typer.Option(
            help="Instead of a question: a file with the JSON body of a chat request, - for stdin.",
            show_default=False,
        ),
    ] = None,
    label: LabelOption = None,
    user: UserOption = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the decision on a question or a request: what was read, route, candidates, probabilities."""
    from serac_gateway.cli.ask import explain as run_explain
    from serac_gateway.cli.ask import explained_messages

    messages = explained_messages(question, system, None if request is None else request.read())
    run_explain(messages, label_options(label), user=user, url=url, namespace=namespace, as_json=as_json)


@app.command()
def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Exit afterwards, with code 1 if a line is not as it should be.")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(help="Walk through a gateway that runs.", show_default="start one on 127.0.0.1:8080"),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Data folder of the gateway that is started.", show_default="XDG data folder"),
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the gateway that is started.")] = 8080,
    as_json: JsonOption = False,
) -> None:
    """See edits take effect in front of a real language model.

    Works in the namespace "demo", and clears what an earlier run left there.
    """
    from serac_gateway.cli.demo import demo as run_demo

    run_demo(once=once, url=url, data_dir=data_dir, port=port, as_json=as_json)


def main() -> None:
    """The entry point."""
    app()
